#!/bin/sh
# unprivileged.sh FOLDER COMMAND...: runs a command as nobody if this is root, with FOLDER, which then belongs to nobody, as its home. What
# comes from a package registry is installed and run this way: none of its code ever runs as root.
set -eu
folder=$1
shift
cd "$folder"
[ "$(id -u)" = 0 ] || exec env HOME="$folder" "$@"
chown -R nobody:nogroup "$folder"
exec setpriv --reuid nobody --regid nogroup --clear-groups --no-new-privs env HOME="$folder" TMPDIR="$folder" "$@"
