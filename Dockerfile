# pdctl as a container: two stages, so that no compiler is in the result; it runs as nobody in particular and writes nowhere.
#
#   docker build -t pdctl .
#   docker run --rm -p 30000:30000 pdctl serve --host 0.0.0.0 --worker-urls http://10.0.0.1:8000 http://10.0.0.2:8000
#   docker exec CONTAINER pdctl workers list
#
# `make image` (scripts/image) builds it with docker, podman or buildah, or, where none of them runs, in a chroot.
#
# --read-only, --cap-drop ALL and --security-opt no-new-privileges fit. Only --capture needs a volume it may write to.
FROM debian:12-slim AS build
WORKDIR /src
COPY scripts/install-deps scripts/rooms scripts/
RUN scripts/install-deps build
COPY Makefile ./
COPY cmd cmd
COPY lib lib
COPY sim sim
RUN make HARDEN=1 O=build && strip build/pdctl && build/pdctl version

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates libcjson1 libcurl4 libcyaml1 libmsgpackc2 libsqlite3-0 libssl3 libxxhash0 libyaml-0-2 libzmq5 libzstd1 zlib1g && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /src/build/pdctl /usr/local/bin/pdctl
USER 65532:65532
# The router's port. Its admin port, 29000, listens on the container's 127.0.0.1 and is not published: see --admin-host.
EXPOSE 30000
STOPSIGNAL SIGTERM
# For the router: its admin port answers, also under overload. Whether requests can be served says /readiness.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["pdctl", "workers", "list"]
ENTRYPOINT ["pdctl"]
CMD ["help"]
