#!/usr/bin/env bash
# Gives the engine the base image that the Dockerfile names, made from this machine's
# Go toolchain, for machines that can reach no image registry. The image holds the
# toolchain and, as a module proxy in a directory, the modules of go.mod; it has no
# shell and needs none. An image of that name that is there already is kept.
#
#   base-image.sh IMAGE LABEL    prints "made IMAGE" or "kept IMAGE"
#
# What is built from a made image inherits LABEL, which finds it when it is to go.
set -euo pipefail

image=${1:?usage: base-image.sh IMAGE LABEL}
label=${2:?usage: base-image.sh IMAGE LABEL}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if docker image inspect "$image" >/dev/null 2>&1; then
  echo "kept $image"
  exit 0
fi

root=$(mktemp -d)
trap 'chmod -R u+w "$root"; rm -rf "$root"' EXIT
mkdir -m 1777 "$root/tmp"
mkdir -p "$root/usr/local/go/pkg" "$root/goproxy"

# The toolchain: the commands, the tools and the standard library, without its tests.
goroot=$(go env GOROOT)
tar -C "$goroot" --exclude='*_test.go' --exclude=testdata -cf - \
  VERSION go.env bin src pkg/tool pkg/include | tar -C "$root/usr/local/go" -xf -

# The modules, laid out as a proxy serves them, MODULE/@v/VERSION.{info,mod,zip}: the
# zips of those in go.mod, and the small files of all, which the module graph is read from.
downloads=$(go env GOMODCACHE)/cache/download
{
  go mod download -json | awk -F'"' '/"Zip":/ {print $4}'
  find "$downloads" -path '*/@v/*' \( -name '*.mod' -o -name '*.info' \)
} | sed "s|^$downloads/||" | tar -C "$downloads" -cf - -T - | tar -C "$root/goproxy" -xf -

tar -C "$root" -cf - . | docker import \
  --change 'ENV PATH=/usr/local/go/bin HOME=/root GOPATH=/go' \
  --change 'ENV GOPROXY=file:///goproxy GOSUMDB=off GOTOOLCHAIN=local' \
  --change 'WORKDIR /go' \
  --change "LABEL $label=1" \
  - "$image" >/dev/null
echo "made $image"
