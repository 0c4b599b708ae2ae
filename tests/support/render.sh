#!/bin/sh
# Renders a folder of deploy/ as `kubectl apply -k` would: with the kustomize that install.sh fetched where kubectl is too old, else with kubectl.
set -eu
kustomize=$("$(dirname "$0")/install.sh" where)/bin/kustomize
if [ -x "$kustomize" ]; then
    exec "$kustomize" build "$1"
fi
exec kubectl kustomize "$1"
