#!/usr/bin/env bash
# Runs a Patroni cluster of three members on loopback with pgnorth in front of it, until Ctrl-C. `make run` calls this.
#
# Other users of this machine have no access: PostgreSQL, etcd and Patroni's REST API (except for reading) require a password, which is generated for this
# run and kept in files that only their owner can read.
#
# It writes to one temporary folder only. Every process that it starts has that folder's name in its environment (DEMO_DIR), so that the cleanup finds these
# processes and no others.
#
#   PORT, ADMIN_PORT   pgnorth's ports; by default 5432 and 8080, or the next free ones
#   PGNORTH_BIN        a pgnorth to run; by default this script builds one
# shellcheck disable=SC2317 # cleanup and on_signal are called by traps
set -euo pipefail

readonly pg_bin=/usr/lib/postgresql/15/bin
if [ -n "${PGNORTH_BIN:-}" ]; then PGNORTH_BIN=$(realpath "$PGNORTH_BIN"); fi
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."
venv=$(tests/support/install.sh where)/patroni
readonly venv

dir=   # the temporary folder
password=
cargo= # process ids
proxy=
stopping=
declare -A pids=() # of etcd and the members, by name

say() { printf 'demo: %s\n' "$*"; }
die() {
    printf 'demo: error: %s\n' "$*" >&2
    exit 1
}
failed() { # COMPONENT MESSAGE: shows the end of its log, and keeps the log, because the folder is removed
    local keep
    keep=$(mktemp "${TMPDIR:-/tmp}/pgnorth-demo-$1.XXXXXX.log")
    cp "$dir/$1.log" "$keep"
    tail -n 20 "$keep" >&2
    die "$2; all of $1's log is in $keep"
}

# ---- Ports

free_ports() { # COUNT: below the range of outgoing connections, so that no port is taken before it is used
    "$venv/bin/python" - "$1" <<'PYTHON'
import random, socket, sys
sockets = []
for port in random.sample(range(20000, 32000), 12000):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(("127.0.0.1", port))
    except OSError:
        continue
    sockets.append(s)
    if len(sockets) == int(sys.argv[1]):
        break
print(*[s.getsockname()[1] for s in sockets])
PYTHON
}

bindable() { # PORT: prints why pgnorth cannot listen there; nothing if it can
    "$venv/bin/python" - "$1" <<'PYTHON'
import os, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    s.bind(("127.0.0.1", int(sys.argv[1])))
    s.listen()
except (OSError, OverflowError) as e:
    print(os.strerror(e.errno).lower() if isinstance(e, OSError) else "no such port")
PYTHON
}

holder() { # PORT: prints the process that listens there, if it is visible
    command -v ss >/dev/null || return 0
    ss -Hltnp "sport = :$1" | sed -nE 's/.*users:\(\("([^"]*)",pid=([0-9]+).*/: \1 (pid \2) listens there/p' | head -n 1
}

choose_port() { # NAME REQUESTED DEFAULT OTHER: sets $NAME; fails if the requested port is busy, moves on if the default is
    local name=$1 port=$2 default=$3 other=$4 why
    if [ -n "$port" ]; then
        if ! [[ $port =~ ^[0-9]{1,5}$ ]] || [ "$port" = 0 ] || [ "$port" -gt 65535 ]; then die "$name=$port is not a port"; fi
        [ "$port" != "$other" ] || die "$name=$port is taken by pgnorth's other port"
        why=$(bindable "$port")
        [ -z "$why" ] || die "$name=$port: $why$(holder "$port")"
    else
        port=$default
        while [ "$port" = "$other" ] || [ -n "$(bindable "$port")" ]; do
            port=$((port + 1))
            [ "$port" -lt $((default + 200)) ] || die "no free port from $default on; choose one: $name=…"
        done
        [ "$port" = "$default" ] || say "port $default is busy$(holder "$default"); using $port"
    fi
    printf -v "$name" %s "$port"
}

# ---- Processes

# PostgreSQL refuses to run as root. The death signal stops the members even if this script gets SIGKILL.
as_user=(setpriv --pdeathsig TERM)
[ "$(id -u)" != 0 ] || as_user+=(--reuid postgres --regid postgres --clear-groups)

start() { # NAME COMMAND...: in a session of its own, so that the terminal's Ctrl-C reaches only this script
    local name=$1
    shift
    # A clean environment, because the user's PATRONI_*, ETCD_*, PG* and proxy variables would change these programs; and a folder that the postgres user can
    # enter, which this checkout may not be.
    env -i -C "$dir" DEMO_DIR="$dir" HOME="$dir" PATH="$pg_bin:/usr/bin:/bin" LANG=C.UTF-8 \
        setsid "${as_user[@]}" "$@" </dev/null >"$dir/$name.log" 2>&1 &
    pids[$name]=$!
    disown # otherwise bash reports each process that ends
}

all_alive() {
    local name
    for name in "${!pids[@]}"; do
        kill -0 "${pids[$name]}" 2>/dev/null || failed "$name" "$name ended unexpectedly"
    done
}

ours() { # prints every process of this run
    { grep -lzsxF -- "DEMO_DIR=$dir" /proc/[0-9]*/environ || true; } | cut -d / -f 3
}

cleanup() {
    local status=$? pid signal try mine
    # It takes a few seconds and must not be interrupted, not even by a terminal that closes.
    trap '' INT TERM HUP PIPE
    set +e
    exec 2>/dev/null
    [ -z "$cargo" ] || { kill -TERM -- "-$cargo" && wait "$cargo"; }
    if [ -n "$dir" ]; then
        # The data is thrown away, so nothing waits for an orderly stop. Only the postmaster gets a signal that it can handle: it then releases its shared
        # memory.
        for try in {1..100}; do
            mine=$(ours)
            [ -n "$mine" ] || break
            for pid in $mine; do
                signal=KILL
                case $(readlink "/proc/$pid/exe") in */postgres) [ "$try" -gt 50 ] || signal=QUIT ;; esac
                kill -s "$signal" "$pid"
            done
            sleep 0.1
        done
        rm -rf "$dir"
        say "stopped; $dir is removed"
    fi
    exit "$status"
}

on_signal() {
    # pgnorth gets each signal: the first starts the drain, the second ends it immediately.
    if [ -n "$proxy" ] && kill -TERM "$proxy" 2>/dev/null; then
        [ -n "$stopping" ] || say "stopping"
        stopping=yes
    else
        exit 130
    fi
}

trap cleanup EXIT
trap on_signal INT TERM
trap 'exit 129' HUP # the terminal is gone: no drain
trap 'exit 141' PIPE

# ---- The cluster

make_folder() {
    local parent=${TMPDIR:-/tmp} old pid
    # PostgreSQL runs as postgres, which may not have access to root's TMPDIR.
    "${as_user[@]}" test -x "$parent" || parent=/tmp
    for old in "$parent/pgnorth-demo-$UID".??????/; do
        # A run that got SIGKILL could not remove its folder.
        if [ -O "$old" ] && read -r pid 2>/dev/null <"$old/pid" && ! grep -qs run.sh "/proc/$pid/cmdline"; then
            say "removing ${old%/}, left by a run that was killed"
            rm -rf "$old"
        fi
    done
    dir=$(mktemp -d "$parent/pgnorth-demo-$UID.XXXXXX")
    echo $$ >"$dir/pid"
    [ "$(id -u)" != 0 ] || chmod 755 "$dir"
    mkdir -m 700 "$dir"/{etcd,demo-0,demo-1,demo-2}
    password=$(head -c 24 /dev/urandom | base64 | tr -d '+/=\n')
    (umask 077 && echo "127.0.0.1:*:*:postgres:$password" >"$dir/pgpass" && touch "$dir"/demo-{0,1,2}.yml &&
        head -c 24 /dev/urandom | base64 >"$dir/etcd-password") # of pgnorth's user, which may read
    [ "$(id -u)" != 0 ] || chown postgres:postgres "$dir"/{etcd,demo-0,demo-1,demo-2} "$dir"/demo-{0,1,2}.yml
}

member_config() { # NUMBER
    cat <<YAML
scope: demo
name: demo-$1
restapi:
  listen: 127.0.0.1:${rest[$1]}
  connect_address: 127.0.0.1:${rest[$1]}
  authentication: {username: demo, password: $password}
etcd3:
  host: 127.0.0.1:$etcd_port
  username: root
  password: $password
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 3
    retry_timeout: 5
    postgresql:
      use_pg_rewind: true
      parameters:
        fsync: 'off' # the data is thrown away
        shared_buffers: 16MB
        wal_keep_size: 128MB
  initdb:
    - encoding: UTF8
    - locale: C.UTF-8
    - data-checksums
    - no-sync
postgresql:
  listen: 127.0.0.1:${postgres[$1]}
  connect_address: 127.0.0.1:${postgres[$1]}
  bin_dir: $pg_bin
  data_dir: $dir/demo-$1/data
  pgpass: $dir/demo-$1/pgpass
  use_unix_socket: false
  use_unix_socket_repl: false
  parameters:
    unix_socket_directories: ''
  basebackup:
    - checkpoint: fast
    - no-sync
  authentication:
    superuser: {username: postgres, password: $password}
    replication: {username: replicator, password: $password}
  pg_hba:
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication replicator 127.0.0.1/32 scram-sha-256
YAML
}

# A client that can write to etcd can make PostgreSQL run commands. The password goes through a pipe, because arguments are visible.
close_etcd() {
    local etcdctl=(env ETCDCTL_API=3 etcdctl --endpoints "http://127.0.0.1:$etcd_port" --command-timeout 10s)
    "${etcdctl[@]}" user add root --interactive=false <<<"$password" &&
        "${etcdctl[@]}" user grant-role root root &&
        "${etcdctl[@]}" role add pgnorth && "${etcdctl[@]}" role grant-permission pgnorth --prefix=true read /service/demo/ &&
        "${etcdctl[@]}" user add pgnorth --interactive=false <"$dir/etcd-password" &&
        "${etcdctl[@]}" user grant-role pgnorth pgnorth && "${etcdctl[@]}" auth enable
}

get() { curl -sf --noproxy '*' -m 2 -o /dev/null "$1"; }

start_cluster() {
    local ports etcd_peer_port i deadline
    read -ra ports < <(free_ports 8)
    [ "${#ports[@]}" = 8 ] || die "no eight free ports from 20000 to 32000"
    etcd_port=${ports[0]}
    etcd_peer_port=${ports[1]}
    rest=("${ports[@]:2:3}")
    postgres=("${ports[@]:5:3}")

    say "starting etcd and three Patroni members on 127.0.0.1, in $dir"
    start etcd etcd --name etcd --data-dir "$dir/etcd/data" \
        --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
        --listen-peer-urls "http://127.0.0.1:$etcd_peer_port" \
        --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer_port" \
        --initial-cluster "etcd=http://127.0.0.1:$etcd_peer_port"
    deadline=$((SECONDS + 20))
    until get "http://127.0.0.1:$etcd_port/health"; do
        all_alive
        [ "$SECONDS" -lt "$deadline" ] || failed etcd "etcd did not become healthy within 20 s"
        sleep 0.2
    done
    close_etcd >>"$dir/etcd.log" 2>&1 || failed etcd "setting etcd's password failed"
    for i in 0 1 2; do
        member_config "$i" >"$dir/demo-$i.yml"
        start "demo-$i" "$venv/bin/patroni" "$dir/demo-$i.yml"
    done
}

wait_for_cluster() {
    local deadline=$((SECONDS + 90)) i leader running lagging said='' now
    while :; do
        all_alive
        leader='' running=0 lagging=
        for i in 0 1 2; do
            if get "http://127.0.0.1:${rest[i]}/replica"; then
                running=$((running + 1))
            elif get "http://127.0.0.1:${rest[i]}/primary"; then
                running=$((running + 1)) leader=demo-$i
            else
                lagging=demo-$i
            fi
        done
        [ -z "$leader" ] || [ "$running" -lt 3 ] || break
        now="waiting for the cluster: ${leader:-no} leader, $running of 3 members running"
        [ "$now" = "$said" ] || say "$now"
        said=$now
        [ "$SECONDS" -lt "$deadline" ] || failed "${lagging:-demo-0}" "the cluster was not complete within 90 s"
        sleep 0.5
    done
    say "the cluster is complete, $leader leads"
}

# ---- pgnorth

# Unoptimised: an optimised build takes minutes, and the demo would show the same. `cargo test` builds with the same profile.
build() {
    local total count said=$SECONDS began=$SECONDS
    say "downloading and compiling pgnorth meanwhile (once, about a minute on two idle cores)"
    in_background cargo fetch --locked --quiet
    total=$(cargo tree --locked --offline --edges normal,build --prefix none --no-dedupe | sort -u | wc -l)
    begin_in_background cargo build --locked --quiet --bin pgnorth --message-format json-render-diagnostics
    while kill -0 "$cargo" 2>/dev/null; do
        if [ $((SECONDS - said)) -ge 5 ]; then
            said=$SECONDS
            count=$(grep -o '"package_id":"[^"]*"' "$dir/cargo.json" | sort -u | wc -l)
            say "compiling pgnorth: $count of $total crates, $((SECONDS - began)) s"
        fi
        sleep 0.2 || true
    done
    end_in_background
    PGNORTH_BIN=$(sed -nE 's/.*"executable":"([^"]+)".*/\1/p' "$dir/cargo.json" | tail -n 1)
}

# In the background, since bash runs a trap only once its foreground command has ended.
begin_in_background() {
    setsid setpriv --pdeathsig TERM "$@" </dev/null >"$dir/cargo.json" &
    cargo=$!
}

end_in_background() {
    wait "$cargo" || die "the build failed, see above"
    cargo=
}

in_background() { begin_in_background "$@" && end_in_background; }

start_proxy() {
    local deadline=$((SECONDS + 30))
    # Chosen only now, because another demo may have taken them during the build, and locked until pgnorth listens: two demos that start together would both
    # find them free, and each would take the other's answer for its own.
    exec 9<"$venv"
    flock 9
    choose_port PORT "$requested_port" 5432 ''
    choose_port ADMIN_PORT "$requested_admin_port" 8080 "$PORT"
    DEMO_DIR=$dir setsid setpriv --pdeathsig TERM "$PGNORTH_BIN" \
        --listen "127.0.0.1:$PORT" --admin "127.0.0.1:$ADMIN_PORT" \
        --scope demo --etcd "http://127.0.0.1:$etcd_port" --etcd-user pgnorth --etcd-password-file "$dir/etcd-password" \
        --drain 2s --lame-duck 0s </dev/null 9<&- &
    proxy=$!
    until get "http://127.0.0.1:$ADMIN_PORT/leader"; do
        kill -0 "$proxy" 2>/dev/null || { [ -z "$stopping" ] && die "pgnorth ended before it was ready, see above" || exit 0; }
        [ "$SECONDS" -lt "$deadline" ] || die "pgnorth found no leader within 30 s, see above"
        sleep 0.2 || true
    done
    exec 9<&-
    echo "$PORT ${rest[*]}" >"$dir/ready"
}

banner() {
    local switchover="make switchover"
    [ "$PORT" = 5432 ] || switchover+=" PORT=$PORT"
    cat <<TEXT

  pgnorth is ready.

    connect            PGPASSFILE=$dir/pgpass psql 'host=127.0.0.1 port=$PORT user=postgres dbname=postgres'
    move the leader    $switchover      (in another terminal)
    look               http://127.0.0.1:$ADMIN_PORT/

  Ctrl-C stops the cluster and deletes its folder. Installed packages stay.

TEXT
}

wait_for_proxy() {
    local status=0 deadline='' terminal=''
    [ ! -t 0 ] || terminal=yes
    while kill -0 "$proxy"; do
        if [ -n "$stopping" ]; then
            : "${deadline:=$((SECONDS + 10))}"
            [ "$SECONDS" -lt "$deadline" ] || break
        fi
        # Under `ssh -t host make run`, a broken connection signals only make, which waits for this script.
        [ -z "$terminal" ] || [ -t 0 ] || exit 129
        sleep 0.2 || true # the terminal's Ctrl-C ends sleep, too
    done 2>/dev/null # bash reports there how pgnorth ended
    [ -z "$stopping" ] || {
        ! kill -0 "$proxy" 2>/dev/null || die "pgnorth did not end within 10 s"
        exit 0
    }
    wait "$proxy" 2>/dev/null || status=$?
    [ "${status:-0}" != 0 ] || die "pgnorth ended with status 0: it was stopped, or replaced by a reload, which this demo does not follow"
    die "pgnorth ended by itself, with status $status"
}

# ----

if ! [ -x "$venv/bin/patroni" ] || ! [ -x "$pg_bin/postgres" ]; then
    die "Patroni and PostgreSQL are missing: run tests/support/install.sh demo"
fi
if [ -z "${PGNORTH_BIN:-}" ]; then
    command -v cargo >/dev/null || die "cargo is not on PATH: install a Rust toolchain"
else
    [ -x "$PGNORTH_BIN" ] || die "PGNORTH_BIN=$PGNORTH_BIN is not a program"
fi
PORT=${PORT:-} ADMIN_PORT=${ADMIN_PORT:-}
requested_port=$PORT requested_admin_port=$ADMIN_PORT
# Checked before the build.
[ -z "$requested_port" ] || choose_port PORT "$requested_port" '' ''
[ -z "$requested_admin_port" ] || choose_port ADMIN_PORT "$requested_admin_port" '' "$requested_port"

make_folder
start_cluster
[ -n "${PGNORTH_BIN:-}" ] || build
wait_for_cluster
start_proxy
banner
wait_for_proxy
