# syntax=docker/dockerfile:1
#
# The image of the sidecar and its commands: `docker build -t tollgate:0.1.0 .` It needs BuildKit. tests/deploy compares
# what stands here with the crate.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
COPY lua lua
COPY migrations migrations
COPY config config
ARG TARGETARCH
# The caches spare the next build its dependencies. A cache may be newer than a file that has changed, and cargo goes by
# times: touched files make it build this crate again, always.
RUN --mount=type=cache,id=tollgate-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=tollgate-target-${TARGETARCH},target=/build/target,sharing=locked \
    find Cargo.toml build.rs src lua migrations config -exec touch {} + \
    && cargo build --release --locked --bin tollgate \
    && install -D target/release/tollgate /image/bin/tollgate \
    && mkdir -p /image/lib/tollgate

# The C library, libgcc_s and the root certificates, of the same Debian that it was built on: no shell, no packages.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="The money layer for AI and tool calls: a sidecar proxy" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE config/LICENSE.genai-prices /usr/share/doc/tollgate/
COPY --from=build /image/bin/ /usr/local/bin/
# All that it ever writes is here: the embedded file, and the journal of bounded calls. It is no VOLUME, so that a
# container with a read-only root and without a volume says so at its start, in place of keeping money in an anonymous one.
COPY --from=build --chown=65532:65532 /image/lib/ /var/lib/
WORKDIR /var/lib/tollgate
# The number of `nonroot`: Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
# proxy and health. By default they are on loopback; control stays there.
EXPOSE 8080 8082
# It is the first process and takes SIGTERM itself. There is no HEALTHCHECK, because there is no other program in here that
# could ask: an orchestrator asks /livez and /readyz of the health listener.
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve", "--config", "/etc/tollgate/tollgate.toml"]
