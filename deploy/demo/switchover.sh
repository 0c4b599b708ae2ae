#!/usr/bin/env bash
# Asks Patroni for a switchover in the running demo. `make switchover` calls this.
#
#   PORT   pgnorth's port in the demo to use, if several are running
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."
venv=$(tests/support/install.sh where)/patroni

die() {
    printf 'switchover: error: %s\n' "$*" >&2
    exit 1
}

found=() ports=() starting=
for dir in "${TMPDIR:-/tmp}/pgnorth-demo-$UID".??????; do
    # Its owner is checked, since anyone may create such a folder in /tmp.
    { [ -O "$dir" ] && read -r pid 2>/dev/null <"$dir/pid" && grep -qs run.sh "/proc/$pid/cmdline"; } || continue
    read -r port _ 2>/dev/null <"$dir/ready" || {
        starting=yes
        continue
    }
    [ "${PORT:-$port}" = "$port" ] || continue
    found+=("$dir")
    ports+=("$port")
done
case ${#found[@]} in
0)
    [ -z "$starting" ] || die "the demo is still starting"
    die "no demo of yours is running${PORT:+ on port $PORT}; start one with: make run"
    ;;
1) dir=${found[0]} ;;
*) die "several demos are running; choose one by its port: $(printf 'make switchover PORT=%s  ' "${ports[@]}")" ;;
esac

get() { curl -sf --noproxy '*' -m 2 -o /dev/null "$1"; }
read -r _ rest0 rest1 rest2 <"$dir/ready"
leader='' candidates=()
i=0
for rest in "$rest0" "$rest1" "$rest2"; do
    if get "http://127.0.0.1:$rest/replica"; then
        candidates+=("demo-$i")
    elif get "http://127.0.0.1:$rest/primary"; then
        leader=demo-$i
    fi
    i=$((i + 1))
done
[ -n "$leader" ] || die "the cluster has no leader at this moment; try again in a few seconds"
[ "${#candidates[@]}" -gt 0 ] || die "no replica is ready to lead; try again in a few seconds"

echo "switchover: asking Patroni to move the leader from $leader to ${candidates[0]}; watch the log in the first terminal"
exec env -i HOME="$dir" PATH=/usr/bin:/bin LANG=C.UTF-8 "$venv/bin/patronictl" -c "$dir/demo-0.yml" \
    switchover demo --leader "$leader" --candidate "${candidates[0]}" --force
