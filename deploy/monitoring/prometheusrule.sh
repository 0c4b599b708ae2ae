#!/bin/sh
# Makes the PrometheusRule of ../components/prometheus-operator from alerts.yaml, its only source: run it after a change. A test compares the two.
# (kustomize cannot do this: it reads no file outside its folder, and accepts no list of groups as a resource.)
set -eu
cd "$(dirname "$0")"
{
    cat <<'HEAD'
# Made from deploy/monitoring/alerts.yaml by deploy/monitoring/prometheusrule.sh: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pgnorth
  labels:
    app.kubernetes.io/name: pgnorth
spec:
HEAD
    sed -e '1,/^groups:/{/^groups:/!d;}' -e 's/^./  &/' alerts.yaml
} >"${1:-../components/prometheus-operator/prometheusrule.yaml}"
