#!/usr/bin/env bash
# Builds the image of the Dockerfile without any container registry. Then starts it as Kubernetes would, checks it and lists its contents; or, with the name
# of an archive, writes it there for `docker load`, `podman load` and `ctr images import`. `make image-test` and `make image` call this.
#
#   run.sh [ARCHIVE]
#
# The builder image is a Debian made by debootstrap, with this machine's Rust toolchain and its downloaded crates.
# Everything is kept below $PGNORTH_CACHE/image: the machine's own images and containers are not touched.
set -euo pipefail

cd "$(dirname "$0")/../.."
readonly storage=${PGNORTH_CACHE:?the Makefile sets it}/image
readonly builder=localhost/pgnorth-builder image=localhost/pgnorth
readonly user=65532 # the Dockerfile's

say() { printf 'image: %s\n' "$*"; }
die() {
    printf 'image: error: %s\n' "$*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || die "debootstrap and buildah need root here: run it with sudo"

work=$(mktemp -d "${TMPDIR:-/tmp}/pgnorth-image.XXXXXX")
readonly work
tidy() {
    [ -z "${runtime:-}" ] || [ ! -s "$work/pid" ] || kill -KILL "$(cat "$work/pid")" 2>/dev/null || true
    [ -z "${runtime:-}" ] || wait "$runtime" || true
    [ -z "${container:-}" ] || b rm "$container" >/dev/null || true
    rm -rf "$work"
}
trap tidy EXIT
trap 'exit 130' INT TERM HUP

b() { buildah --root "$storage/storage" --runroot "$storage/run" --storage-driver overlay "$@"; }

# ---- The builder: Debian 12, and what this machine builds with.

make_builder() {
    local sysroot rust base=$storage/base
    sysroot=$(rustc --print sysroot)
    rust=$(rustc --version)
    [ "$(b inspect --type image --format '{{index .OCIv1.Config.Labels "rust"}}' "$builder" 2>/dev/null || true)" != "$rust" ] || return 0
    if [ ! -e "$base.done" ]; then
        say "Debian 12 by debootstrap"
        rm -rf "$base"
        debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates bookworm "$base" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$storage/debootstrap.log" 2>&1 ||
            die "debootstrap failed; its output is in $storage/debootstrap.log"
        touch "$base.done"
    fi
    say "the builder image, with $rust"
    container=$(b from scratch)
    b copy --quiet "$container" "$base" / >/dev/null
    for part in bin lib; do b copy --quiet "$container" "$sysroot/$part" "/usr/local/$part" >/dev/null; done
    b config --label "rust=$rust" --env CARGO_HOME=/cargo --env CARGO_NET_OFFLINE=true "$container"
    b commit --quiet --rm "$container" "$builder" >/dev/null
    container=
}

mkdir -p "$storage"
make_builder

# ---- The image

commit=$(git rev-parse --short=7 HEAD)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
say "building the image; the dependencies take some minutes the first time"
cargo fetch --locked --quiet
# The crates are lent as a volume, so that no layer holds them. Nothing is pulled: the builder is here.
b build --isolation chroot --layers --pull-never \
    --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/cargo/registry:ro" \
    --build-arg BUILDER_IMAGE="$builder" --build-arg VERSION="$version" --build-arg PGNORTH_COMMIT="$commit" \
    --tag "$image" . >"$storage/build.log" 2>&1 || {
    tail -n 30 "$storage/build.log" >&2
    die "the build failed; all of its output is in $storage/build.log"
}

if [ -n "${1:-}" ]; then
    mkdir -p "$(dirname "$1")"
    rm -f "$1"
    b push --quiet "$image" "docker-archive:$1:pgnorth:$version"
    say "$1: pgnorth:$version, commit $commit"
    exit
fi

# ---- What it is

inspect() { b inspect --type image --format "$1" "$image"; }
check() { # WHAT IS EXPECTED
    [ "$2" = "$3" ] || die "$1: $2, and not $3"
    printf '  %-34s %s\n' "$1" "$2"
}

container=$(b from --pull-never "$image")
rootfs=$(b mount "$container")
echo
say "what it is"
check user "$(inspect '{{.OCIv1.Config.User}}')" "$user:$user"
check entrypoint "$(inspect '{{.OCIv1.Config.Entrypoint}}')" '[/pgnorth]'
check version "$(inspect '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}')" "$version"
check revision "$(inspect '{{index .OCIv1.Config.Labels "org.opencontainers.image.revision"}}')" "$commit"
printf '  %-34s %s\n' size "$(du --summarize --bytes --si "$rootfs" | cut -f 1)"
printf '  %-34s %s\n' files "$(find "$rootfs" -type f -printf '/%P ' | sort)"
# Nothing but pgnorth and the loader may be run.
check "programs" "$(find "$rootfs" -type f -perm /111 -printf '/%P\n' | grep -v '\.so' | sort | tr '\n' ' ')" "/pgnorth "
check "files of another owner than root" "$(find "$rootfs" ! -uid 0 | wc -l)" 0
check "setuid files" "$(find "$rootfs" -perm /6000 | wc -l)" 0

# ---- Started as Kubernetes would: no capability, a read-only root, namespaces of its own. (No seccomp filter, and no limits: those are the node's.)

mkdir "$work/bundle"
crun spec --bundle "$work/bundle" 2>/dev/null || (cd "$work/bundle" && crun spec)
python3 - "$work/bundle/config.json" "$rootfs" "$user" <<'PYTHON'
import json, sys
path, rootfs, user = sys.argv[1:]
config = json.load(open(path))
config["root"] = {"path": rootfs, "readonly": True}
config["process"].update(
    terminal=False, args=["/pgnorth"], cwd="/", capabilities={}, noNewPrivileges=True, user={"uid": int(user), "gid": int(user)},
    # Nothing answers there: only the image is tested here.
    env=["PGNORTH_PATRONI=http://127.0.0.1:8008", "PGNORTH_LAME_DUCK=0s"],
)
json.dump(config, open(path, "w"))
PYTHON
# crun supports only cgroups v2: it gets such a mount in its own mount namespace, and is told not to use cgroups.
# shellcheck disable=SC2016 # the $ are the inner shell's
unshare --mount --propagation private sh -c '
    umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
    exec crun --cgroup-manager=disabled --root "$1/state" run --bundle "$1/bundle" --pid-file "$1/pid" "pgnorth-image-$$"
' sh "$work" >"$work/log" 2>&1 &
runtime=$!
for _ in $(seq 100); do
    [ ! -s "$work/pid" ] || ! grep -q listening "$work/log" || break
    kill -0 "$runtime" 2>/dev/null || break
    sleep 0.1
done
grep -q listening "$work/log" || {
    cat "$work/log" >&2
    die "it did not start"
}
pid=$(cat "$work/pid")
inside() { nsenter --target "$pid" --net "$@"; }
inside ip link set lo up
status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }

echo
say "what runs"
check "/livez" "$(inside curl --silent --show-error --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8080/livez)" 200
check "/metrics, commit" "$(inside curl --silent http://127.0.0.1:8080/metrics | sed -n 's/^pgnorth_build_info{commit="\([^"]*\)".*/\1/p')" "$commit"
check "user" "$(status Uid)" "$user"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do check "$set" "$(status $set)" 0000000000000000; done
check "no new privileges" "$(status NoNewPrivs)" 1
check "root" "$(awk '$5 == "/" { split($6, options, ","); print options[1] }' "/proc/$pid/mountinfo")" ro
kill -TERM "$pid"
ended=0
wait "$runtime" || ended=$?
runtime=
check "exit code after SIGTERM" "$ended" 0
