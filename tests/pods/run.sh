#!/usr/bin/env bash
# Runs Patroni, pgnorth and `pgnorth publish` as real pods, makes changes and faults under load from pods, and counts what clients see.
# Prints a table. Exit status 1 if a count is not as expected.
#
#   KUBECONFIG=… LOAD='kind load image-archive' run.sh     on a cluster of at least two nodes that the user has; LOAD is
#                                                          called with each image's archive; objects go to `default`
#   CLUSTER=…/cluster.sh run.sh                            on a cluster of its own; CLUSTER is a program with the verbs
#                                                          up, down, load ARCHIVE, in COMMAND…, dns (again after a new
#                                                          Service); PROXYMODE is kube-proxy's mode
#
# PROGRAM is the pgnorth to pack (target/release/pgnorth). ONLY=loss runs those whose name contains it. The pods' logs
# go to target/pods. Only with CLUSTER: the loss of a node, and what the kernel
# reports about the container.
set -Eeuo pipefail
cd "$(dirname "$0")/../.."
readonly cache=${PGNORTH_CACHE:?the Makefile sets it} program=${PROGRAM:-target/release/pgnorth}
readonly cluster=${CLUSTER:+$(realpath "$CLUSTER")}
export PROXYMODE=${PROXYMODE:-nftables}
failures=0
rows=()

say() { printf 'pods: %s\n' "$*"; }
die() {
    printf 'pods: error: %s\n' "$*" >&2
    exit 1
}
must() { # WHAT EXPECTED ACTUAL
    [ "$2" = "$3" ] && return
    printf 'pods: FAILED: %s: %s, and not %s\n' "$1" "$3" "$2" >&2
    failures=$((failures + 1))
}
[ -n "$cluster" ] || [ -n "${KUBECONFIG-}" ] || die "no cluster: set KUBECONFIG and LOAD, or CLUSTER (see ${0##*/})"

k() { if [ -n "$cluster" ]; then "$cluster" in kubectl "$@"; else "${KUBECTL:-kubectl}" "$@"; fi; }
load_image() { if [ -n "$cluster" ]; then "$cluster" load "$1"; else ${LOAD:?how this cluster gets an image from an archive} "$1"; fi; }
until_true() { # SECONDS WHAT COMMAND…
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "$what: not after the time given to it"
        sleep 0.3
    done
}

# ---- The cluster

start() {
    local pressure image deployment pod
    tests/pods/images.sh "$program"
    [ -z "$cluster" ] || "$cluster" up
    for image in pgnorth patroni; do load_image "$cache/pods/$image.tar" >/dev/null; done
    k version -o json | sed -n 's/.*"gitVersion": "\(.*\)".*/pods: Kubernetes \1/p' | tail -n 1
    pressure=$(k get nodes -o 'jsonpath={range .items[*]}{.metadata.name}{range .status.conditions[?(@.status=="True")]} {.type}{end}{"\n"}{end}' | grep Pressure || true)
    [ -z "$pressure" ] || die "a node takes no pods (a kubelet needs 15 % of its disk free): $pressure"
    k apply -k "$PWD/tests/pods" >/dev/null
    [ -z "$cluster" ] || "$cluster" dns
    k rollout status statefulset/demo --timeout=300s >/dev/null
    until_true 120 "three members run" three_members
    for deployment in pgnorth pgnorth-publish; do k rollout status "deployment/$deployment" --timeout=120s >/dev/null; done
    k apply -f "$PWD/tests/pods/load.yaml" >/dev/null
    k wait --for=condition=Ready pod/load pod/load-direct --timeout=60s >/dev/null
    for pod in load load-direct; do until_true 60 "$pod has a session" has_log "$pod"; done
}
# shellcheck disable=SC2317 # called by the trap
end() {
    mkdir -p target/pods
    for pod in $(k get pods -l 'app.kubernetes.io/name in (pgnorth, pgnorth-publish)' -o name 2>/dev/null); do
        k logs --timestamps "$pod" >"target/pods/${pod#pod/}.log" || true
    done
    if [ -n "$cluster" ]; then
        "$cluster" down
    else
        k delete --ignore-not-found -f "$PWD/tests/pods/load.yaml" >/dev/null
        k delete --ignore-not-found -k "$PWD/tests/pods" >/dev/null
    fi
}
has_log() { k exec "$1" -- test -s /tmp/load.jsonl; }
# Patroni keeps each member's state in an annotation of its pod.
members() { # ROLE STATE
    k get pods -l application=patroni,cluster-name=demo -o json |
        python3 -c '
import json, sys
for pod in json.load(sys.stdin)["items"]:
    status = json.loads(pod["metadata"].get("annotations", {}).get("status", "{}"))
    role = status.get("role", "").replace("master", "primary")
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    if ready and role == sys.argv[1] and status.get("state") == "running" and "deletionTimestamp" not in pod["metadata"]:
        print(pod["metadata"]["name"], pod["spec"]["nodeName"])' "$1"
}
primary() { k get endpoints demo -o 'jsonpath={.metadata.annotations.leader}' 2>/dev/null; }
three_members() { [ "$(members primary | wc -l)" = 1 ] && [ "$(members replica | wc -l)" = 2 ]; }
other_primary() { [ -n "$(primary)" ] && [ "$(primary)" != "$1" ]; }

# ---- Counting

now() { k exec load -- date +%s.%N; }
recovered() { # POD: new clients have been served again for two seconds
    k exec "$1" -- python3 /load/load.py since "$(k exec "$1" -- date +%s.%N --date='2 seconds ago')" |
        python3 -c 'import json, sys; d = json.load(sys.stdin); sys.exit(not (d["connections"] > 20 and d["refused"] + d["cut"] == 0))'
}

# under_load NAME REFUSED CUT BROKEN COMMAND…: runs COMMAND, waits until clients are served again, and prints what they saw.
# REFUSED, CUT (logins that were ended while they were under way) and BROKEN are the numbers that are allowed, or "-".
under_load() {
    local name=$1 refused=$2 cut=$3 broken=$4 from pod
    shift 4
    [[ $name == *"${ONLY-}"* ]] || return 0
    say "$name"
    from=$(now)
    "$@"
    for pod in load load-direct; do
        until_true 180 "$name: new clients of $pod are served" recovered "$pod"
        count "$name" "$pod" "$from" "$refused" "$cut" "$broken"
        # Only pgnorth holds clients; those of the Service that it publishes go to PostgreSQL directly.
        refused=- cut=- broken=-
    done
    until_true 240 "$name: three members run again" three_members
}
count() { # NAME POD FROM REFUSED CUT BROKEN
    local seen
    seen=$(k exec "$2" -- python3 /load/load.py since "$3")
    value() { python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$seen" "$1"; }
    rows+=("| $1 | $([ "$2" = load ] && echo pgnorth || echo publish) | $(value connections) | $(value refused) / $(value cut) | $(value longest_wait) s | $(value longest_gap) s | $(value sessions) / $(value broken) | $(value standby) |")
    say "${rows[-1]}"
    [ "$(value errors)" = '{}' ] || say "$2: $(value errors)"
    if [ "$2" = load ]; then
        must "$1: answers by a standby" 0 "$(value standby)"
        [ "$4" = - ] || must "$1: refused connections" "$4" "$(value refused)"
        [ "$5" = - ] || [ "$(value cut)" -le "$5" ] || must "$1: logins that were cut" "at most $5" "$(value cut)"
        [ "$6" = - ] || must "$1: broken sessions" "$6" "$(value broken)"
    fi
}

# ---- What is done to the cluster

switchover() {
    local old candidate=${1-}
    old=$(primary)
    k exec "$old" -- patronictl -c /etc/patroni/patroni.yml switchover demo --leader "$old" ${candidate:+--candidate "$candidate"} --force >/dev/null
    until_true 60 "another member leads" other_primary "$old"
}
delete_primary() {
    local old
    old=$(primary)
    k delete pod "$old" --grace-period=0 --force >/dev/null 2>&1
    # A member that returns before the lock has expired may keep it.
    until_true 120 "the cluster has a primary" one_primary
}
one_primary() { [ "$(members primary | wc -l)" = 1 ]; }
restart() { # KIND/NAME
    k rollout restart "$1" >/dev/null
    k rollout status "$1" --timeout=300s >/dev/null
}
scale() { # KIND/NAME REPLICAS…
    local kind=$1 to
    shift
    for to; do
        k scale "$kind" --replicas="$to" >/dev/null
        k rollout status "$kind" --timeout=240s >/dev/null
    done
}
evict() { # POD: prints the API's answer
    printf '{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s","namespace":"default"}}' "$1" |
        k create --raw "/api/v1/namespaces/default/pods/$1/eviction" -f - 2>&1
}
evict_both() {
    local pods answer
    # Not those that still drain after a change of scale: an eviction of such a pod is granted and changes nothing.
    mapfile -t pods < <(k get pods -l app.kubernetes.io/name=pgnorth -o json | python3 -c '
import json, sys
for pod in json.load(sys.stdin)["items"]:
    if "deletionTimestamp" not in pod["metadata"]:
        print(pod["metadata"]["name"])')
    [ "${#pods[@]}" = 2 ] || die "eviction of both pgnorths: two pods are expected to run, and ${#pods[@]} do: ${pods[*]}"
    answer=$(evict "${pods[0]}")
    [[ $answer == *Success* ]] || must "the first eviction" granted "$answer"
    answer=$(evict "${pods[1]}" || true)
    [[ $answer == *"disruption budget"* ]] || must "the second eviction" "refused by the disruption budget" "$answer"
    k rollout status deployment/pgnorth --timeout=120s >/dev/null
    until_true 60 "the second pod may go" evicted "${pods[1]}"
    k rollout status deployment/pgnorth --timeout=120s >/dev/null
}
evicted() { [[ "$(evict "$1")" == *Success* ]]; }
# The node that the load does not run on is cut off while the primary is on it.
lose_node() {
    local node member
    node=$(k get nodes -o name | sed 's,node/,,' | grep -vx "$(k get pod load -o 'jsonpath={.spec.nodeName}')" | head -n 1)
    member=$(members primary | awk -v node="$node" '$2 == node { print $1 }')
    if [ -z "$member" ]; then
        member=$(members replica | awk -v node="$node" '$2 == node { print $1 }' | head -n 1)
        switchover "$member"
        until_true 60 "$member leads" three_members
    fi
    say "$node, with the primary $member, is cut off"
    from=$(now)
    "$cluster" in ip link set "$node" down
    until_true 120 "another member leads" other_primary "$member"
    until_true 180 "new clients are served" recovered load
    "$cluster" in ip link set "$node" up
}

# ---- The container

container() {
    local pid field
    for pid in $("$cluster" in pgrep -x pgnorth); do
        for field in 'Seccomp:	2' 'NoNewPrivs:	1' 'CapEff:	0000000000000000' 'CapBnd:	0000000000000000' 'Uid:	65532	65532	65532	65532'; do
            "$cluster" in grep -qxF "$field" "/proc/$pid/status" || must "the kernel's view of pgnorth" "$field" "$("$cluster" in grep "^${field%%:*}" "/proc/$pid/status")"
        done
        "$cluster" in awk '$5 == "/" && $6 ~ /^ro(,|$)/ { found = 1 } END { exit !found }' "/proc/$pid/mountinfo" || must "the root file system" read-only writable
    done
    say "containers: seccomp filter, no new privileges, no capability, user 65532, read-only root"
}
memory() {
    local pid
    for pid in $("$cluster" in pgrep -x pgnorth); do
        say "pgnorth $("$cluster" in sed -n 's/^VmHWM:[[:space:]]*/most memory /p' "/proc/$pid/status")"
    done
}
commands() {
    say "psql through the ClusterIP: $(k exec load -- psql -XAtq -h postgres-primary -U postgres -c "select 'PostgreSQL ' || current_setting('server_version') || ', writable: ' || not pg_is_in_recovery()")"
    # CLUSTER's DNS may not support headless Services.
    local report
    report=$(k exec deployment/pgnorth -- /pgnorth doctor) || true
    printf '%s\n' "$report"
    must "pgnorth doctor in the pod: FAIL lines" "" "$(grep '^FAIL' <<<"$report" | grep -v ${cluster:+-e 'patroni-members.*cannot be resolved'} -e '^$' || true)"
    k exec deployment/pgnorth -- /pgnorth status || must "pgnorth status in the pod" "exit status 0" "exit status $?"
}

# ---- The run

trap end EXIT
trap 'exit 130' INT TERM
trap 'printf "pods: error: line %s ended with exit status %s: %s\n" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR
start
commands
[ -z "$cluster" ] || container
# Ten clients: a primary that stops cuts a login of each at most.
under_load "switchover" 0 10 - switchover
under_load "rolling update of pgnorth" 0 0 0 restart deployment/pgnorth
under_load "pgnorth scaled to 4 and back" 0 0 0 scale deployment/pgnorth 4 2
under_load "eviction of both pgnorths" 0 0 0 evict_both
under_load "primary's pod deleted by force" - - - delete_primary
under_load "rolling update of Patroni" 0 20 - restart statefulset/demo
under_load "Patroni scaled to 4 and back" 0 0 - scale statefulset/demo 4 3
if [ -n "$cluster" ]; then
    under_load "loss of the primary's node" - - - lose_node
else
    say "loss of a node: NOT TRIED, it needs CLUSTER"
fi
[ -z "$cluster" ] || memory
printf '\nkube-proxy: %s\n| change | Service | connections | refused / cut in the login | longest wait | longest gap | sessions / broken | answered by a standby |\n|--|--|--|--|--|--|--|--|\n' "${cluster:+$PROXYMODE}"
printf '%s\n' "${rows[@]}"
[ "$failures" = 0 ] || die "$failures counts are not as they must be (FAILED, above)"
