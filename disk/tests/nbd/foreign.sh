#!/bin/sh
# Runs the suites of other NBD projects against the server: nbd-tester-client (of nbd, https://github.com/NetworkBlockDevice/nbd) and
# aio-parallel and synch-parallel (of libnbd, https://gitlab.com/nbdkit/libnbd). Their sources are not ours to carry:
#   foreign.sh NBD_SOURCE LIBNBD_SOURCE      folders of the unpacked releases (tried: nbd 3.26.1, libnbd 1.14.2)
# Needs a C compiler, make, bison, flex, nbdkit, nbdcopy, and the headers of glib, gnutls and libnbd (Debian: libglib2.0-dev
# libgnutls28-dev libnbd-dev pkg-config). Not part of ./check: building them takes longer than all tests of the server.
set -eu
nbd=$(realpath "$1")
libnbd=$(realpath "$2")
cd "$(dirname "$0")/../.."
cargo build --release -p disk --example nbd_memory
server=$(realpath "${CARGO_TARGET_DIR:-../target}/release/examples/nbd_memory")
work=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"' EXIT

serve() { # NAME=BYTES...: a fresh server; its socket is $socket
    socket=$(mktemp -u "$work/XXXXXX")
    "$server" "unix:$socket" "$@" >"$work/server" 2>&1 &
    pids="$pids $!"
    until [ -S "$socket" ]; do sleep 0.05; done
}

if ! [ -x "$nbd/tests/run/nbd-tester-client" ]; then
    (cd "$nbd" && ac_cv_prog_DB2M=true ./configure && { make -k || true; } && make -C tests/run nbd-tester-client) >"$work/nbd.log" 2>&1
fi
touch "$work/config.h"
for name in aio-parallel synch-parallel; do
    cc -O2 -I"$work" -I"$libnbd/tests" -I"$libnbd/include" -I"$libnbd/common/include" -o "$work/$name" "$libnbd/tests/$name.c" -lnbd -lpthread
done

failed=0
tried() { # WORDS COMMAND...: its output is progress by the million, so only the end of it is shown, and only when it fails
    words=$1
    shift
    if timeout 300 "$@" >"$work/said" 2>&1; then echo "passed: $words"; else
        echo "FAILED: $words"
        tail -c 400 "$work/said"
        failed=1
    fi
}

tester() { # OPTIONS...: these want an empty disk of 50 MiB each time
    serve disk=52428800
    tried "nbd-tester-client $*" "$nbd/tests/run/nbd-tester-client" -u "$socket" -N disk "$@"
}
tester
tester -w
tester -w -f
tester -o
tester -l
tester -i -t "$nbd/tests/run/integrity-test.tr"
tester -i -t "$nbd/tests/run/integrityhuge-test.tr"

parallel() { # NAME MIB: these expect the pattern of nbdkit
    serve "disk=$(($2 << 20))"
    nbdkit -f -U "$work/pattern-$2" pattern "size=$2M" &
    pids="$pids $!"
    until [ -S "$work/pattern-$2" ]; do sleep 0.05; done
    nbdcopy "nbd+unix://?socket=$work/pattern-$2" "nbd+unix://?socket=$socket"
    tried "$1" "$work/$1" "$socket"
}
parallel aio-parallel 64
parallel synch-parallel 8
exit $failed
