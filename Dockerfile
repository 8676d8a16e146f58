# A small image of the parley binary alone: no shell, no package manager, no root.
#
#   docker build -t parley .
#   docker run --rm -it --name node1 parley agent --name node1
#   docker exec node1 parley info

FROM golang:1.26 AS build
ENV CGO_ENABLED=0
WORKDIR /src
# The modules first: they change less often than the code, and the layer is kept.
COPY go.mod go.sum ./
RUN ["go", "mod", "download"]
COPY . .
RUN ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", "/out/usr/local/bin/parley", "./cmd/node"]
# An empty directory, for the image below: it has no mkdir.
WORKDIR /out/run

FROM scratch
COPY --from=build /out/usr/local/bin/parley /usr/local/bin/parley
# The agent makes /run/parley, mode 0700, for its control socket; /run belongs to the user
# it runs as. In a read-only container put a tmpfs there: --tmpfs /run:uid=65532,gid=65532
COPY --from=build --chown=65532:65532 /out/run /run
ENV PATH=/usr/local/bin \
    XDG_RUNTIME_DIR=/run \
    PARLEY_BIND=0.0.0.0:7946
USER 65532:65532
# Gossip. The overlay's endpoints take a free port each and travel in the gossip.
EXPOSE 7946/tcp 7946/udp
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["parley", "info"]
# SIGTERM, docker stop's signal, lets the agent say goodbye: others see it left, not failed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["parley"]
CMD ["agent"]
