#!/usr/bin/env bash
# Restarts a Deployment N times in turn, and counts how often two of its pods were placed on one node. KUBECTL names the kubectl to use.
set -euo pipefail
readonly deployment=${1:?usage: rollouts.sh DEPLOYMENT [N]} times=${2:-20} kubectl=${KUBECTL:-kubectl}
apart=0
for i in $(seq "$times"); do
    $kubectl rollout restart "deployment/$deployment" >/dev/null
    $kubectl rollout status "deployment/$deployment" --timeout=120s >/dev/null
    # Only the newest ReplicaSet's pods: the old ones may still drain.
    hash=$($kubectl get replicasets -l "app.kubernetes.io/name=$deployment" --sort-by=.metadata.creationTimestamp -o jsonpath='{.items[-1:].metadata.labels.pod-template-hash}')
    nodes=$($kubectl get pods -l "app.kubernetes.io/name=$deployment,pod-template-hash=$hash" -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l)
    [ "$nodes" = 1 ] || apart=$((apart + 1))
done
echo "$deployment: on two nodes after $apart of $times restarts"
