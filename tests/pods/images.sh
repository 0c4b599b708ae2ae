#!/usr/bin/env bash
# Packs the two images that pods on a real Kubernetes need, without a registry, as archives that `ctr images import` and `docker load` read:
#   $PGNORTH_CACHE/pods/patroni.tar   localhost/patroni:test, PostgreSQL 15 and Patroni, the one that install.sh keeps below $PGNORTH_CACHE/patroni; also psql, for clients
#   $PGNORTH_CACHE/pods/pgnorth.tar   localhost/pgnorth:test, the program named (target/release/pgnorth if none is), on an empty root as the Dockerfile has it
# Usage: images.sh [PROGRAM]. Root, debootstrap and buildah. The image for users is built by the Dockerfile; tests/image checks it.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly cache=${PGNORTH_CACHE:?the Makefile sets it} program=${1:-target/release/pgnorth}
readonly folder=$cache/pods

say() { printf 'pods: %s\n' "$*"; }
die() {
    printf 'pods: error: %s\n' "$*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || die "debootstrap and buildah need root here: run it with sudo"
[ -x "$program" ] || die "there is no $program: build it first"
[ -x "$cache/patroni/bin/patroni" ] || die "there is no $cache/patroni: tests/support/install.sh test makes it"
mkdir -p "$folder"

b() { buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver overlay "$@"; }
keep() { # CONTAINER NAME
    b commit --quiet --rm "$1" "localhost/$2:test" >/dev/null
    rm -f "$folder/$2.tar"
    b push --quiet "localhost/$2:test" "docker-archive:$folder/$2.tar:localhost/$2:test"
    say "$folder/$2.tar"
}

patroni() {
    local container base=$folder/base stamp=$folder/patroni.stamp
    cmp -s "$cache/patroni/installed" "$stamp" && [ -e "$folder/patroni.tar" ] && return
    if [ ! -e "$base.done" ]; then
        say "Debian 12 with PostgreSQL 15, by debootstrap"
        rm -rf "$base"
        debootstrap --variant=minbase --include=ca-certificates,postgresql-15,python3,procps,iproute2 bookworm "$base" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$folder/debootstrap.log" 2>&1 ||
            die "debootstrap failed; its output is in $folder/debootstrap.log"
        # Nothing uses the cluster that Debian creates.
        rm -rf "$base"/var/lib/postgresql/15 "$base"/etc/postgresql/15 "$base"/var/cache/apt/archives/*.deb
        touch "$base.done"
    fi
    container=$(b from scratch)
    b copy --quiet "$container" "$base" / >/dev/null
    # A virtual environment contains its own path, so it needs the same path in the image.
    b copy --quiet "$container" "$cache/patroni" "$cache/patroni" >/dev/null
    b config --env PATH="$cache/patroni/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin" --env HOME=/tmp \
        --user "$(awk -F: '$1 == "postgres" { print $3 ":" $4 }' "$base/etc/passwd")" \
        --entrypoint '["patroni"]' --cmd /etc/patroni/patroni.yml "$container"
    keep "$container" patroni
    cp "$cache/patroni/installed" "$stamp"
}

pgnorth() {
    local container root
    container=$(b from scratch)
    root=$(b mount "$container")
    mkdir -p "$root/etc/ssl/certs"
    strip --strip-debug -o "$root/pgnorth" "$program"
    ldd "$program" | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory="$root"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    echo 'pgnorth:x:65532:65532::/:/nonexistent' >"$root/etc/passwd"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    b unmount "$container" >/dev/null
    b config --user 65532:65532 --entrypoint '["/pgnorth"]' --cmd '' "$container"
    keep "$container" pgnorth
}

pgnorth
patroni
