#!/bin/sh
# Renders every folder of deploy/ and checks the output against published schemas (check.mjs). Needs kubectl, node and npm.
set -eu
cd "$(dirname "$0")/../.."
work=${PGNORTH_CACHE:?the Makefile sets it}/schemas
root=$(pwd)
unprivileged=$root/tests/support/unprivileged.sh
for program in kubectl node npm; do
    command -v "$program" >/dev/null || {
        echo "$0: $program is not on PATH" >&2
        exit 1
    }
done
mkdir -p "$work/rendered"
rm -f "$work"/rendered/*
cp tests/schemas/package.json tests/schemas/package-lock.json tests/schemas/check.mjs "$work/"
cmp -s "$work/package-lock.json" "$work/installed" || {
    (cd "$work" && "$unprivileged" "$work" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$work/package-lock.json" "$work/installed"
}

render() { # NAME FOLDER
    tests/support/render.sh "$2" >"$work/rendered/$1.yaml"
}
for folder in deploy/base deploy/publish deploy/examples/*; do
    render "$(basename "$folder")" "$folder"
done
# A component cannot be applied alone: each is added to an example, and then all of them together.
scratch=$(mktemp -d "$root/deploy/.check.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
overlay() { # NAME COMPONENT...
    name=$1
    shift
    printf 'resources: [../examples/patroni]\ncomponents: [%s]\n' "$(printf '../components/%s, ' "$@")" >"$scratch/kustomization.yaml"
    render "$name" "$scratch"
}
set --
for component in deploy/components/*; do
    set -- "$@" "$(basename "$component")"
    overlay "with-$(basename "$component")" "$(basename "$component")"
done
overlay with-all "$@"
cat >"$scratch/statefulset.yaml" <<'YAML'
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: patronidemo}
spec:
  serviceName: patronidemo
  selector: {matchLabels: {application: patroni}}
  template:
    metadata: {labels: {application: patroni}}
    spec: {containers: [{name: patroni, image: patroni}]}
YAML
echo 'resources: [statefulset.yaml]
components: [../publish/sidecar]' >"$scratch/kustomization.yaml"
render sidecar "$scratch"
cd "$work"
"$unprivileged" "$work" node check.mjs rendered/*.yaml
