# One static program in an otherwise empty image.
#
#   docker build -t portway .
#   docker buildx build --platform linux/arm64,linux/arm/v7 -t portway .
#
# VERSION, REVISION and SOURCE fill the labels of the image. Without BuildKit's platforms, TARGETARCH (amd64, arm64, arm)
# chooses the machine.
ARG RUST=1
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST}-bookworm AS build
WORKDIR /src
# `setcap`, for ports below 1024 without root.
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends libcap2-bin >/dev/null && rm -rf /var/lib/apt/lists/*
ARG TARGETARCH
# Rust's own linker makes a program for any of these machines.
RUN case "${TARGETARCH:-$(uname -m)}" in \
        amd64 | x86_64) target=x86_64-unknown-linux-musl ;; \
        arm64 | aarch64) target=aarch64-unknown-linux-musl ;; \
        arm | armv7l) target=armv7-unknown-linux-musleabihf ;; \
        *) echo "no such machine: TARGETARCH=$TARGETARCH" >&2; exit 1 ;; \
    esac \
    && rustup target add "$target" \
    && echo "$target" >/target \
    && printf '[build]\ntarget = "%s"\n[target.%s]\nlinker = "rust-lld"\n' "$target" "$target" >"$CARGO_HOME/config.toml"

# The dependencies are a layer of their own: a change of the source does not build them again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked --bin portway \
    && rm -r src

COPY src src
# `touch`, because the files are older than what was built in their place.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin portway \
    && install -D "target/$(cat /target)/release/portway" /image/portway \
    # Permitted, not effective: with `--cap-drop ALL` it starts all the same, and portway raises it where it may.
    && setcap cap_net_bind_service=p /image/portway \
    && install -d -m 0755 /image/etc/portway \
    && install -d /state/var/lib/portway /state/run/portway

FROM scratch
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="portway" \
      org.opencontainers.image.description="A port-forwarding daemon and layer-4 reverse proxy for TCP and UDP" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"
COPY --from=build /image /
# What outlives a restart goes to /var/lib/portway, if a volume is mounted there. The socket for `portway status` and the
# other commands is in /run/portway.
COPY --from=build --chown=65532:65532 /state /
COPY LICENSE /usr/share/doc/portway/
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/portway", "health"]
ENTRYPOINT ["/portway"]
CMD ["run"]
