# The image: one binary, the libraries that it is linked with, CA certificates; no shell. It runs as 65532 on a
# read-only root.
#
#   docker build --build-arg PGNORTH_COMMIT="$(git rev-parse --short=7 HEAD)" --tag pgnorth .
#
# BUILDER_IMAGE: Debian-like, with cargo 1.95 or newer, a C compiler, binutils and ca-certificates. A tag moves with
# each update of that image; for repeatable builds, give the digest that `docker buildx imagetools inspect
# rust:1.95-slim-bookworm` shows: --build-arg BUILDER_IMAGE=rust:1.95-slim-bookworm@sha256:…
# RUNTIME_IMAGE: scratch, so that the image has no base to be kept up to date; or an image with CA certificates and
# a C library that is not older than the builder's, such as a distroless "cc".
ARG BUILDER_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=scratch

FROM ${BUILDER_IMAGE} AS build
WORKDIR /build

# The dependencies alone, with an empty program (and benchmarks, which cargo looks for if Cargo.toml names them):
# this layer stays until Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir -p src \
 && echo 'fn main() {}' | tee src/main.rs >src/lib.rs \
 && for bench in $(sed -n '/^\[\[bench\]\]/{n;s/^name = "\(.*\)"/\1/p}' Cargo.toml); do \
      mkdir -p "benches/$bench" && cp src/main.rs "benches/$bench/main.rs"; \
    done \
 && cargo build --release --locked --bin pgnorth \
 && rm -r src benches

COPY src src
COPY benches benches
ARG PGNORTH_COMMIT=unknown
# touch: cargo compares times of modification, and the sources may be older than the empty program.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin pgnorth

# The files of the final image. A runtime image other than scratch has its own C library, certificates and users.
ARG RUNTIME_IMAGE
RUN mkdir -p /rootfs/etc/ssl/certs \
 && strip --strip-debug -o /rootfs/pgnorth target/release/pgnorth \
 && if [ "${RUNTIME_IMAGE}" = scratch ]; then \
      ldd target/release/pgnorth | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory=/rootfs; \
      cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/; \
      echo 'pgnorth:x:65532:65532::/:/nonexistent' >/rootfs/etc/passwd; \
      echo 'pgnorth:x:65532:' >/rootfs/etc/group; \
      echo 'hosts: files dns' >/rootfs/etc/nsswitch.conf; \
    fi

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG PGNORTH_COMMIT=unknown
LABEL org.opencontainers.image.title="pgnorth" \
      org.opencontainers.image.description="One address that leads to the PostgreSQL primary of a Patroni cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${PGNORTH_COMMIT}"
COPY --from=build /rootfs/ /
# A number, so that runAsNonRoot can be checked without the image's passwd.
USER 65532:65532
EXPOSE 5432 8080
ENTRYPOINT ["/pgnorth"]
