# One static program in an otherwise empty image.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN target="$(uname -m)-unknown-linux-musl" \
    && rustup target add "$target" \
    && cargo build --release --locked --bin portway --target "$target" \
    && install -D "target/$target/release/portway" /image/portway \
    && install -d -m 0755 /image/etc/portway \
    && install -d /state/var/lib/portway /state/run/portway

FROM scratch
COPY --from=build /image /
# What outlives a restart goes to /var/lib/portway, if a volume is mounted there. The socket for `portway status` and the
# other commands is in /run/portway.
COPY --from=build --chown=65532:65532 /state /
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/portway", "health"]
ENTRYPOINT ["/portway"]
CMD ["run"]
