#!/usr/bin/env bash
# Tries the packages on a Debian 12 that is booted for it, with a real systemd, PostgreSQL and Debian's own Patroni and etcd: install, edit one file, start,
# psql, upgrade, remove, purge; then the same with the RPM. `make test-packages` calls this.
#
#   PROFILE   cargo's profile of the program, by default release; dev is faster to build
#
# The machine is a systemd-nspawn inside private namespaces (inside.sh). Its Debian is made once, below $PGNORTH_CACHE/packages; what a run writes is lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly cache=${PGNORTH_CACHE:?the Makefile sets it}/packages
readonly base=$cache/base built=target/packages

say() { printf 'packages: %s\n' "$*"; }
die() {
    printf 'packages: error: %s\n' "$*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || die "debootstrap and systemd-nspawn need root: run it with sudo"

# ---- Outside: Debian, and two releases of each package

make_base() {
    [ ! -e "$base.done" ] || return 0
    say "Debian 12 with PostgreSQL, Patroni and etcd, by debootstrap"
    mkdir -p "$cache"
    rm -rf "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates bookworm "$base" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} \
        >"$cache/debootstrap.log" 2>&1 || die "debootstrap failed; its output is in $cache/debootstrap.log"
    cp --dereference /etc/resolv.conf "$base/etc/"
    printf '#!/bin/sh\nexit 101\n' >"$base/usr/sbin/policy-rc.d"
    chmod 755 "$base/usr/sbin/policy-rc.d"
    DEBIAN_FRONTEND=noninteractive chroot "$base" sh -c 'apt-get -q update && apt-get -q -y install --no-install-recommends \
        patroni python3-etcd python3-dnspython etcd-server postgresql-15 curl procps rpm' >"$cache/apt.log" 2>&1 || die "apt-get failed; its output is in $cache/apt.log"
    rm -rf "$base/usr/sbin/policy-rc.d" "$base"/var/lib/postgresql/15 "$base"/etc/postgresql/15 "$base"/var/cache/apt/archives/*.deb
    chroot "$base" systemctl --quiet disable etcd patroni postgresql
    touch "$base.done"
}

if [ "${1:-}" != --inside ]; then
    make_base
    work=$(mktemp -d "${TMPDIR:-/tmp}/pgnorth-packages.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM HUP
    RELEASE=2 packaging/build.sh
    mv "$built"/pgnorth?*-2[._]*.{deb,rpm} "$work"
    RELEASE=1 packaging/build.sh
    cp "$built"/pgnorth?*-1[._]*.{deb,rpm} "$work"
    lintian --allow-root --fail-on error,warning "$work"/*-1_*.deb
    say "lintian finds nothing"
    tests/support/inside.sh "$0" --inside "$work"
    exit
fi

# ---- Inside: the machine

readonly work=$2
mkdir "$work/upper" "$work/overlay" "$work/machine"
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" pgnorth-packages "$work/machine"
cp "$work"/*.{deb,rpm} "$work/machine/root/"
# If this machine does not run systemd, nothing on it can create a scope for the container.
keep_unit=--keep-unit
[ ! -d /sys/fs/cgroup/systemd/system.slice ] && [ ! -d /sys/fs/cgroup/system.slice ] || keep_unit=
systemd-nspawn --quiet --boot --register=no ${keep_unit:+"$keep_unit"} --private-network --console=pipe --machine=pgnorth-packages \
    --directory="$work/machine" >"$work/console" 2>&1 &
for _ in $(seq 100); do
    # In this PID namespace, the only systemd is that of the container.
    first=$(pgrep --oldest --exact systemd) && break
    sleep 0.1
done
[ -n "${first:-}" ] || die "systemd did not boot: $(cat "$work/console")"

# Runs a command in the machine.
at() { nsenter --target "$first" --all --root --wd -- "$@"; }
check() { # WHAT IS EXPECTED
    [ "$2" = "$3" ] || {
        at journalctl --no-pager --lines 60 >&2 || true
        die "$1: \"$2\", and not \"$3\""
    }
    printf '  %-52s %s\n' "$1" "$2"
}
within() { # SECONDS WHAT COMMAND...: repeats a command until it succeeds
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || check "$what" no yes
        sleep 0.2
    done
}
property() { at systemctl show --value --property "$1" pgnorth; }
ready() { at curl --silent --fail --max-time 2 http://127.0.0.1:8080/readyz; }
query_on_stdin() {
    at env PGPASSWORD=test PGCONNECT_TIMEOUT=20 psql --host 127.0.0.1 --port 5432 --username postgres --no-psqlrc --tuples-only --no-align postgres
}
query() { query_on_stdin <<<"$1"; }
answers() { # WHAT
    within 30 "$1: ready" ready
    check "$1: psql, in recovery" "$(query 'select pg_is_in_recovery()')" f
}
start() {
    at systemctl start pgnorth
    answers "$1"
}

within 60 "a bus to systemd" at systemctl show --property Version
at systemctl is-system-running --wait >/dev/null || true
echo
say "the machine: $(at systemctl --version | head -n 1), $(at patroni --version), $(at /usr/lib/postgresql/15/bin/postgres --version)"
check "systemd" "$(at systemctl is-system-running)" running

# A name, so that it is looked up inside the unit's sandbox.
at sh -c 'echo "127.0.0.1 pg.test" >>/etc/hosts'
at tee /etc/patroni/config.yml >/dev/null <<'YAML'
scope: demo
name: pg
restapi: {listen: "127.0.0.1:8008", connect_address: "pg.test:8008"}
etcd3: {host: "127.0.0.1:2379"}
bootstrap: {dcs: {ttl: 30}, initdb: [{encoding: UTF8}], pg_hba: ["host all all 127.0.0.1/32 md5", "local all all trust"]}
postgresql:
  listen: 127.0.0.1:5433
  connect_address: pg.test:5433
  data_dir: /var/lib/postgresql/demo
  bin_dir: /usr/lib/postgresql/15/bin
  authentication: {superuser: {username: postgres, password: test}, replication: {username: standby, password: test}}
YAML
at systemctl start etcd patroni
within 60 "Patroni has a primary" at curl --silent --fail http://127.0.0.1:8008/primary

installed() { # WHAT ENABLED: what holds after a first installation
    check "$1: at boot" "$(at systemctl is-enabled pgnorth || true)" "$2"
    check "$1: now" "$(property ActiveState)" inactive
    check "$1: its user" "$(at id --user --name pgnorth)" pgnorth
    check "$1: man page" "$(at find /usr/share/man/man1 -name 'pgnorth.1*' | wc -l)" 1
    at systemd-analyze verify --man=no pgnorth.service pgnorth.socket
    check "$1: systemd-analyze verify" "" ""
}
configure() {
    at sed -i 's|^#\(PGNORTH_ETCD=\).*|\1http://127.0.0.1:2379|; s|^#\(PGNORTH_SCOPE=demo\)|\1|' /etc/default/pgnorth
}
configured() { at grep --count '^PGNORTH_ETCD=http://127.0.0.1:2379$' /etc/default/pgnorth; }
upgraded() { # WHAT COMMAND...: what holds after an upgrade, with a session that is open meanwhile
    local before session to from backend after what=$1
    before=$(property MainPID)
    shift
    coproc query_on_stdin
    session=$COPROC_PID from=${COPROC[0]} to=${COPROC[1]}
    echo 'select pg_backend_pid();' >&"$to"
    read -r -t 30 -u "$from" backend || die "$what: the session does not begin"
    at "$@" >"$work/output" 2>&1 || die "$what: $(cat "$work/output")"
    check "$what: another process" "$([ "$(property MainPID)" = "$before" ] || echo yes)" yes
    check "$what: settings kept" "$(configured)" 1
    answers "$what"
    echo 'select pg_backend_pid();' >&"$to"
    read -r -t 30 -u "$from" after || die "$what: the session has ended"
    check "$what: the session from before" "$([ "$after" = "$backend" ] && echo open)" open
    eval "exec $to>&-"
    wait "$session"
}
gone() { # WHAT
    check "$1: processes" "$(at pgrep --count --uid pgnorth || true)" 0
    check "$1: the unit" "$(property LoadState)" not-found
}

echo
say "the Debian package"
at sh -c 'dpkg --install /root/*-1_*.deb' >"$work/output" 2>&1 || die "$(cat "$work/output")"
installed "deb" enabled
exposure=$(at systemd-analyze security --no-pager pgnorth | sed -n 's/.*exposure level for pgnorth.service: \([0-9.]*\).*/\1/p')
printf '  %-52s %s\n' "deb: systemd-analyze security" "$exposure"
awk -v exposure="$exposure" 'BEGIN { exit !(exposure <= 2.0) }' || die "systemd-analyze security: $exposure, above 2.0"

at systemctl start pgnorth || true
within 20 "deb: a start without settings fails" at systemctl is-failed pgnorth
check "deb: exit status without settings" "$(property ExecMainStatus), $(property NRestarts) restarts" "2, 0 restarts"
at journalctl --no-pager --unit pgnorth --priority err --grep 'PGNORTH_SCOPE' >/dev/null ||
    check "deb: an error in the journal names the setting" no yes

configure
start "deb: started"
main=$(property MainPID)
check "deb: user of the process" "$(at ps -o user= -p "$main")" pgnorth
# A machine may allow systemd itself less than the unit asks for.
check "deb: limit of open files, or the machine's" "$(at awk '/^Max open files/ { print $4 }' "/proc/$main/limits")" \
    "$(at awk '/^Max open files/ { print $5 < 65536 ? $5 : 65536 }' /proc/1/limits)"
check "deb: warnings and errors in its log" "$(at journalctl --no-pager --unit pgnorth --output cat "_PID=$main" | grep -cE ' (WARN|ERROR) ' || true)" 0
journal() { at journalctl --no-pager --unit pgnorth --output cat "$@" "_PID=$main"; }
check "deb: the journal's priority of 'listening'" "$(journal --priority info..info | grep -c ' listening ' || true)" 1
check "deb: priorities are not part of the text" "$(journal | grep -c '^<' || true)" 0
at kill -KILL "$main"
within 20 "deb: another process after SIGKILL" at sh -c "[ \"\$(systemctl show --value --property MainPID pgnorth)\" -gt 0 ] && [ \"\$(systemctl show --value --property MainPID pgnorth)\" != $main ]"
answers "deb: killed"
upgraded "deb: upgraded" sh -c 'dpkg --install --force-confold /root/*-2_*.deb'

at sh -c 'systemctl stop pgnorth && systemctl enable --quiet --now pgnorth.socket && systemctl start pgnorth'
answers "deb: socket"
at systemctl restart pgnorth &
restart=$! refused=0 queries=0
while kill -0 "$restart" 2>/dev/null; do
    query 'select 1' >/dev/null || refused=$((refused + 1))
    queries=$((queries + 1))
done
wait "$restart"
check "deb: socket: of $queries clients during a restart, refused" "$refused" 0
at dpkg --remove pgnorth >/dev/null 2>&1
gone "deb: removed"
check "deb: removed: settings" "$(configured)" 1
at sh -c 'dpkg --install /root/*-2_*.deb' >/dev/null
start "deb: installed again"
at dpkg --purge pgnorth >/dev/null
gone "deb: purged"
check "deb: purged: files that are left" "$(at sh -c 'find / -xdev -name "*pgnorth*" ! -path "/root/*" ! -path "/proc/*" ! -path "/sys/*" -print' | tr '\n' ' ')" ""
check "deb: purged: systemd" "$(at systemctl is-system-running)" running

echo
say "the RPM package, by rpm on the same machine (its requirements are another distribution's names: --nodeps)"
at sh -c 'rpm --install --nodeps /root/*-1.*.rpm'
installed "rpm" enabled
configure
start "rpm: started"
upgraded "rpm: upgraded" sh -c 'rpm --upgrade --nodeps /root/*-2.*.rpm'
at rpm --erase --nodeps pgnorth 2>"$work/output"
gone "rpm: erased"
check "rpm: erased: settings" "$(at sed -n 's/^PGNORTH_SCOPE=//p' /etc/default/pgnorth.rpmsave)" demo
echo
say "all of it holds"
