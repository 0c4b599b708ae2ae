#!/usr/bin/env bash
# Checks the commits of this branch that are not on the branch that it will be merged into: no merges, subjects within 72 characters, a body for each change above
# 50 lines. `make check` calls this.
#
#   commits.sh [BASE]   origin/main, or the main branch of the only remote there is
set -euo pipefail
cd "$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)"

readonly longest_subject=72 longest_without_body=50
# Nobody writes these by hand, so they need no explanation.
readonly generated=(':(exclude)*.lock' ':(exclude)*package-lock.json')

say() { printf 'commits: %s\n' "$*"; }

base=${1:-origin/main}
if ! git rev-parse --verify --quiet "$base^{commit}" >/dev/null; then
    say "NOT CHECKED: there is no $base to compare with; git fetch origin main, or name another base"
    [ -z "${1:-}" ]
    exit
fi

mapfile -t commits < <(git rev-list --reverse "$base..HEAD")
faults=0
fault() { # COMMIT PROBLEM
    say "$(git log -1 --format='%h %s' "$1"): $2"
    faults=$((faults + 1))
}
for commit in "${commits[@]}"; do
    if [ "$(git rev-list --parents -n 1 "$commit" | wc -w)" -gt 2 ]; then
        fault "$commit" "a merge; rebase on $base instead"
        continue
    fi
    subject=$(git log -1 --format=%s "$commit")
    [ "${#subject}" -le "$longest_subject" ] || fault "$commit" "the subject has ${#subject} characters; $longest_subject are allowed"
    lines=$(git show --format= --numstat "$commit" -- . "${generated[@]}" | awk '{ lines += $1 + $2 } END { print lines + 0 }')
    if [ "$lines" -gt "$longest_without_body" ] && [ -z "$(git log -1 --format=%b "$commit" | tr -d '[:space:]')" ]; then
        fault "$commit" "$lines lines are changed without a body; say why, what, and how it was checked"
    fi
done
[ "$faults" = 0 ] || exit 1
[ "${#commits[@]}" -gt 0 ] || { say "nothing to check: no commit beyond $base" && exit; }
say "${#commits[@]} commits beyond $base are in order"
