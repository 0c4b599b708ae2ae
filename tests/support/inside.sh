#!/bin/sh
# Runs a command in its own namespaces: network, processes, shared memory, mounts and /run are private to it.
# When the command ends, or this script is killed, the kernel removes everything that was started in them.
set -eu

if [ "${1-}" = --in-the-world ]; then
    shift
    # An empty /run: the names of network namespaces and the rig's files leave nothing behind.
    mount -t tmpfs -o mode=0755 pgnorth-rig /run
    # PostgreSQL that is killed leaves its shared memory behind.
    mount -t tmpfs -o mode=1777 pgnorth-rig /dev/shm
    mkdir /run/netns "$PGNORTH_RIG"
    # `ip netns add` would do this itself, but not when two rigs start at the same time.
    mount --bind /run/netns /run/netns
    mount --make-shared /run/netns
    ip link set lo up
    # No exec: this shell is process 1, which has to reap orphans, and which the kernel shields from signals.
    "$@"
    exit
fi

if [ $# -eq 0 ]; then
    echo "usage: $0 command [argument...]" >&2
    exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "$0: the test rig makes network namespaces and mounts, so it needs root: run it with sudo" >&2
    exit 1
fi

export PGNORTH_RIG=/run/pgnorth-rig
# unshare itself ignores SIGTERM while it waits, so it runs in the background and is killed for good; the shell's own
# death reaches it through --pdeathsig, and everything in the namespaces dies with it (--kill-child).
setpriv --pdeathsig KILL unshare --net --ipc --mount --propagation private --pid --fork --kill-child --mount-proc \
    sh "$0" --in-the-world "$@" <&0 &
world=$!
trap 'kill -KILL "$world" 2>/dev/null' INT TERM HUP
status=0
wait "$world" || status=$?
exit "$status"
