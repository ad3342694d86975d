# syntax=docker/dockerfile:1
# The image of the hosted server: docs/hosting.md. It has no shell and no package manager, runs as user 65532, and writes
# below /var/lib/bondmcp only, so its root file system can be read-only.

FROM rust:1.94-slim-trixie AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock askama.toml ./
COPY src src
# Cargo.toml names these targets, so that Cargo wants their files.
COPY benches benches
COPY tests/otlp.rs tests/zz_not_run.rs tests/
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --profile dist --features mimalloc --bin bondmcp-server \
    && install -D target/dist/bondmcp-server /image/bondmcp-server \
    && install -d /image/data

# The same Debian release as above, with its C library and trusted certificates.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /image/bondmcp-server /usr/local/bin/bondmcp-server
# A volume that is mounted here belongs to the user too.
COPY --from=build --chown=65532:65532 /image/data /var/lib/bondmcp
USER 65532:65532
# A directory of the server's own: the mounted one may be open to others.
ENV BONDMCP_DATA_DIR=/var/lib/bondmcp/data
EXPOSE 8787
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["bondmcp-server", "healthcheck"]
ENTRYPOINT ["bondmcp-server"]
CMD ["http", "--listen", "0.0.0.0:8787"]
