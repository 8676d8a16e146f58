#!/usr/bin/env bash
# Proves the Dockerfile and docker-compose.yml on a real engine: builds the image, brings
# the three nodes up, and does to them what an operator would and what a network might.
# It cleans up after itself, and prints "SKIP: reason" and exits 0 where there is no engine.
#
#   test/compose/run.sh
#
# No registry is asked: where the base image that the Dockerfile names is missing, it is
# made from this machine's Go toolchain, and removed at the end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

skip() { echo "SKIP: $*"; exit 0; }
command -v docker >/dev/null || skip "no docker client here"
docker info >/dev/null 2>&1 || skip "no Docker engine answers"
if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
elif command -v docker-compose >/dev/null; then
  compose=(docker-compose)
else
  skip "neither docker compose nor docker-compose here"
fi

label=parley-compose-test
base=$(awk '$1 == "FROM" {print $2; exit}' Dockerfile)
compose+=(--project-name "$label-$$")
made=
log=$(mktemp)

finish() {
  code=$?
  trap - EXIT
  if [ "$code" -ne 0 ]; then
    echo "FAILED, exit $code. What the containers said:"
    "${compose[@]}" ps -a 2>&1 | tail -n 20 || true
    "${compose[@]}" logs --no-color --tail=60 2>&1 || true
  fi
  "${compose[@]}" down --rmi all --volumes --remove-orphans --timeout 2 >"$log" 2>&1 || cat "$log"
  if [ -n "$made" ]; then
    # A build that failed leaves its container.
    docker ps --all --quiet --filter "label=$label" | xargs --no-run-if-empty docker rm >/dev/null 2>&1 || true
    docker rmi "$base" >/dev/null 2>&1 || true
    docker image prune --force --filter "label=$label" >/dev/null 2>&1 || true
  fi
  rm -f "$log"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

checks=0
ok() { checks=$((checks + 1)); echo "ok $checks - $*  ($SECONDS s)"; }
fail() { echo "not ok - $*"; exit 1; }

# quietly COMMAND... shows what it says only when it fails.
quietly() { "$@" >"$log" 2>&1 || { cat "$log"; return 1; }; }

# eventually WHAT COMMAND... waits up to 90 s until the command succeeds.
eventually() {
  local what=$1 until=$((SECONDS + 90))
  shift
  until "$@" >"$log" 2>&1; do
    [ "$SECONDS" -lt "$until" ] || { cat "$log"; fail "$what: not in 90 s"; }
    sleep 0.5
  done
  ok "$what"
}

# parley SERVICE ARGS... runs a verb in the container of that service.
parley() {
  local service=$1
  shift
  "${compose[@]}" exec -T "$service" parley "$@"
}
# sees SERVICE NODE STATUS: the member list of that service's node says so.
sees() { parley "$1" members --json | grep "\"name\":\"$2\"" | grep "\"status\":\"$3\""; }
# counts SERVICE N: it sees just N nodes alive.
counts() { [ "$(parley "$1" members --json | grep -c '"status":"alive"')" -eq "$2" ]; }
container() { "${compose[@]}" ps -q "$1" | head -n 1; }
inspect() { docker inspect --format "$2" "$(container "$1")"; }
healthy() { [ "$(inspect "$1" '{{.State.Health.Status}}')" = healthy ]; }
heard() { "${compose[@]}" logs --no-color "$1" | grep "$2"; }

[ "$("$here/base-image.sh" "$base" "$label")" = "kept $base" ] || made=1
echo "base image: $base, $([ -n "$made" ] && echo "made of the Go toolchain here" || echo "there already")  ($SECONDS s)"

quietly "${compose[@]}" up --build --detach
ok "up --build"
for node in node1 node2 node3; do
  eventually "$node is healthy" healthy "$node"
done
for node in node1 node2 node3; do
  eventually "$node sees three nodes" counts "$node" 3
done
addresses=$(parley node1 members --json | grep -o '"addr":"[^"]*"' | sort -u | wc -l)
[ "$addresses" -eq 3 ] || fail "three nodes have $addresses addresses"
ok "each node has an address of its own"

parley node1 send node3 "hello" || fail "send exits $?"
ok "exec node1 parley send node3 hello"
eventually "node3 prints what it was sent" heard node3 hello
code=0
parley node1 send nobody "hello" 2>"$log" || code=$?
[ "$code" -eq 3 ] || { cat "$log"; fail "send to an unknown node exits $code, want 3"; }
ok "a name that nobody has is refused with exit code 3"

size=$(docker image inspect --format '{{.Size}}' "$(inspect node1 '{{.Image}}')")
[ "$size" -lt 40000000 ] || fail "the image has $size bytes"
ok "the image has $((size / 1000000)) MB"
[ "$(inspect node1 '{{.HostConfig.ReadonlyRootfs}}')" = true ] || fail "the root file system can be written"
ok "the root file system is read-only"
pid=$(inspect node1 '{{.State.Pid}}')
if [ -r "/proc/$pid/status" ]; then
  awk '/^Uid:/ && ($2 == 0 || $3 == 0) {bad = 1} /^CapEff:/ && $2 !~ /^0+$/ {bad = 1}
       /^NoNewPrivs:/ && $2 != 1 {bad = 1} END {exit bad}' "/proc/$pid/status" ||
    { cat "/proc/$pid/status"; fail "the agent is root or could become it"; }
  ok "the agent is not root, has no capability and can get none"
else
  echo "SKIP: no /proc of the containers here: the agent's user and capabilities are not checked"
fi

quietly "${compose[@]}" up --detach --no-recreate --scale worker=2
eventually "--scale worker=2: five nodes" counts node1 5
worker=$(inspect worker '{{.Config.Hostname}}')
parley node2 send "$worker" "hello worker" || fail "send exits $?"
ok "a worker is sent to by its name, $worker"
"${compose[@]}" run --rm -T worker members --join worker >"$log" 2>&1 || { cat "$log"; fail "members --join exits $?"; }
grep -q node1 "$log" || { cat "$log"; fail "members --join does not list node1"; }
ok "a seed name that has two addresses is joined, for one call"
quietly "${compose[@]}" up --detach --no-recreate --scale worker=0
eventually "--scale worker=0: three nodes" counts node1 3

quietly "${compose[@]}" stop node2
[ "$(docker inspect --format '{{.State.ExitCode}}' "$("${compose[@]}" ps -aq node2)")" -eq 0 ] || fail "a stopped agent exits other than 0"
ok "a stopped agent exits with 0"
eventually "node1 sees node2 left" sees node1 node2 left
eventually "node3 sees node2 left" sees node3 node2 left
quietly "${compose[@]}" start node2
eventually "node2 started again is alive for node1" sees node1 node2 alive

quietly "${compose[@]}" kill -s SIGKILL node3
eventually "node1 sees node3, killed, failed" sees node1 node3 failed
code=0
parley node1 send node3 "hello" 2>"$log" || code=$?
[ "$code" -eq 4 ] || { cat "$log"; fail "send to a failed node exits $code, want 4"; }
ok "sending to it is refused with exit code 4"
quietly "${compose[@]}" start node3
eventually "node3 started again is alive for node1" sees node1 node3 alive
eventually "node3 sees node1" sees node3 node1 alive
parley node1 send node3 "hello again" || fail "send exits $?"
ok "and is sent to"

# A partition: node1 loses every packet from the two others, and finds them again.
if [ "$(id -u)" -eq 0 ] && command -v nsenter >/dev/null && command -v iptables >/dev/null &&
  quietly nsenter -t "$(inspect node1 '{{.State.Pid}}')" -n iptables -A INPUT ! -i lo -j DROP; then
  eventually "node1, cut off, sees node2 failed" sees node1 node2 failed
  eventually "node2 sees node1 failed" sees node2 node1 failed
  quietly nsenter -t "$(inspect node1 '{{.State.Pid}}')" -n iptables -D INPUT ! -i lo -j DROP
  for pair in "node1 node2" "node1 node3" "node2 node1" "node3 node1"; do
    eventually "the cut healed: ${pair% *} sees ${pair#* }" sees "${pair% *}" "${pair#* }" alive
  done
  parley node2 send node1 "hello after the cut" || fail "send exits $?"
  ok "and messages flow"
else
  echo "SKIP: the partition needs root, nsenter and iptables"
fi

# The same three with encrypted gossip; one without the key stays outside.
quietly "${compose[@]}" down --timeout 10
PARLEY_KEY=$(head -c 32 /dev/urandom | base64)
export PARLEY_KEY
quietly "${compose[@]}" up --detach
eventually "three nodes with a key" counts node1 3
parley node1 send node2 "hello" || fail "send exits $?"
code=0
PARLEY_KEY='' "${compose[@]}" run --rm -T worker members --join node1 >"$log" 2>&1 || code=$?
[ "$code" -ne 0 ] || { cat "$log"; fail "a client without the key was let in"; }
ok "a client without the key is not let in"
"${compose[@]}" run --rm -T worker members --join node1 >"$log" 2>&1 || { cat "$log"; fail "members --join exits $?"; }
ok "one with the key is"

quietly "${compose[@]}" down --timeout 10
echo "compose: $checks checks passed in $SECONDS s"
