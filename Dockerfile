# One static program in an otherwise empty image.
#
#   docker build -t portway .
#   docker buildx build --platform linux/arm64 -t portway .     also linux/arm/v7, without emulation
#
# --build-arg     VERSION, REVISION, SOURCE: the labels of the image; `portway --version` names the revision
#                 TARGETARCH (amd64, arm64, arm): the machine, where no --platform says it
#                 LTO=off CODEGEN_UNITS=16: a build of minutes less, for a program that is larger and slower
ARG RUST=1
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST}-bookworm AS build
WORKDIR /src
# `setcap`, for ports below 1024 without root; python for the notices.
RUN command -v setcap python3 >/dev/null || { apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends libcap2-bin python3 >/dev/null && rm -rf /var/lib/apt/lists/*; }
ARG TARGETARCH
RUN case "${TARGETARCH:-$(uname -m)}" in \
        amd64 | x86_64) echo x86_64-unknown-linux-musl ;; \
        arm64 | aarch64) echo aarch64-unknown-linux-musl ;; \
        arm | armv7l) echo armv7-unknown-linux-musleabihf ;; \
        *) echo "no such machine: TARGETARCH=$TARGETARCH" >&2; exit 1 ;; \
    esac >/target
ARG LTO=thin
ARG CODEGEN_UNITS=1
ARG OPT_LEVEL=3
ENV CARGO_PROFILE_RELEASE_LTO=$LTO CARGO_PROFILE_RELEASE_CODEGEN_UNITS=$CODEGEN_UNITS \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=$OPT_LEVEL

# The dependencies are a layer of their own: a change of the source does not build them again. The script has every flag:
# the program is the one that it builds anywhere.
COPY .ci/release .ci/release
COPY Cargo.toml Cargo.lock ./
COPY src/build.rs src/build.rs
RUN echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && .ci/release "$(cat /target)" \
    && rm -r src

COPY src src
ARG REVISION=""
# `touch`, because the files are older than what was built in their place. The capability is permitted, not effective:
# with `--cap-drop ALL` the program starts all the same, and it raises what it may have.
RUN touch src/build.rs src/main.rs src/lib.rs \
    && program=$(PORTWAY_COMMIT="$REVISION" .ci/release "$(cat /target)") \
    && install -D "$program" /image/portway \
    && setcap cap_net_bind_service=p /image/portway \
    && install -d -m 0755 /image/etc/portway \
    && install -d /state/var/lib/portway /state/run/portway
# The licences of portway and of what is built into it.
COPY LICENSE .ci/notices .ci/
RUN install -D -m 0644 .ci/LICENSE /image/usr/share/doc/portway/LICENSE \
    && .ci/notices /image/usr/share/doc/portway "$(cat /target)"

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
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/portway", "health"]
ENTRYPOINT ["/portway"]
CMD ["run"]
