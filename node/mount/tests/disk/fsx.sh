#!/bin/sh
# Runs the file system exerciser (fsx of FreeBSD, as https://crates.io/crates/fsx, tried: 0.3.2) on a mounted disk in memory: on the file
# itself, and on a loop device over it, with and without direct IO, whose cache and memory maps are the kernel's.
#   fsx.sh [OPERATIONS] [SEED]      20,000 and 15, if not said otherwise
# Needs root, losetup, and fsx, which `cargo install fsx` builds. Not part of ./check: it takes a tool that has to be built first.
set -eu
operations=${1:-20000}
seed=${2:-15}
bytes=16777216
cd "$(dirname "$0")/../.."
if [ -z "${DISK_MEMORY:-}" ]; then
    cargo build -p mount --example disk_memory
    DISK_MEMORY=$(realpath "${CARGO_TARGET_DIR:-../../target}/debug/examples/disk_memory")
fi
work=$(mktemp -d)
loop=
server=
end() {
    [ -z "$loop" ] || losetup --detach "$loop"
    [ -z "$server" ] || kill -INT "$server"
    wait || true
    rm -rf "$work/"*.toml "$work/"*.fsx* "$work/said"
    rmdir "$work/mount" "$work"
}
trap end EXIT
mkdir "$work/mount"
"$DISK_MEMORY" "$work/mount" "$bytes" >/dev/null &
server=$!
until [ -e "$work/mount/disk" ]; do sleep 0.05; done

# In block mode it never resizes. Closing and opening is left out: it cannot be had in that mode.
cat >"$work/loop.toml" <<END
flen = $bytes
blockmode = true
[opsize]
max = 262144
[weights]
truncate = 0
fsync = 0.1
fdatasync = 0.1
invalidate = 0.1
END
# What is open for direct IO cannot be mapped, which invalidating is done by. Of a loop device only whole sectors are punched, which is what fstrim does to it.
{
    grep -v invalidate "$work/loop.toml"
    echo "mapread = 0"
    echo "invalidate = 0"
    echo "mapwrite = 0"
    echo "punch_hole = 0.5"
} >"$work/file.toml"

failed=0
tried() { # WORDS CONFIG FILE
    if fsx -N "$operations" -S "$seed" -P "$work" -f "$2" "$3" >"$work/said" 2>&1; then echo "passed: $1, $operations operations"; else
        echo "FAILED: $1"
        tail -n 40 "$work/said"
        failed=1
    fi
}
tried "the file" "$work/file.toml" "$work/mount/disk"
for direct in off on; do
    loop=$(losetup --find --show --direct-io=$direct "$work/mount/disk")
    tried "a loop device, direct-io=$direct" "$work/loop.toml" "$loop"
    losetup --detach "$loop"
    loop=
done
exit $failed
