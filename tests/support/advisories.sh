#!/usr/bin/env bash
# Checks the dependencies against RustSec's database of advisories, and says clearly if that could not be done. `make check` calls this:
# a machine without access to the database can check everything else. `make advisories` is the same, but fails in that case: for a nightly run.
#
#   advisories.sh [required]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
database=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs

say() { printf 'advisories: %s\n' "$*"; }

# git must not ask anybody for a password, and a network that swallows packets must not hang a build.
status=0 offline=()
why=$(GIT_TERMINAL_PROMPT=0 timeout 120 cargo deny --color never fetch db 2>&1) || status=$?
if [ "$status" = 124 ]; then
    why='no answer within 2 min'
elif [ "$status" != 0 ]; then
    # Any other failure, such as a mistake in deny.toml, is not a problem of the network.
    grep -q 'failed to fetch advisory database' <<<"$why" || {
        printf '%s\n' "$why" >&2
        exit 1
    }
    why=$(grep -iE 'fatal|unable|error' <<<"$why" | tail -n 1)
fi
if [ "$status" != 0 ]; then
    if ! compgen -G "$database/*/.git/HEAD" >/dev/null; then
        say "NOT CHECKED: the RustSec database cannot be fetched, and there is none from before: $why"
        [ "${1:-}" != required ]
        exit
    fi
    say "the RustSec database cannot be brought up to date: $why"
    [ "${1:-}" != required ] || exit 1
    offline=(--frozen)
    say "checking against the copy in $database"
fi
# A copy that is older than deny.toml allows fails here.
cargo deny --locked "${offline[@]}" check advisories
