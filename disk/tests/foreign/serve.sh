# What the suites share: a disk and its server, results, and an end that leaves nothing running. Read in by them with `.`; no more than sh.
#
# Given by `run`: WORK (an empty folder of this suite), CACHE (what is kept between runs), RESULTS (a file), SERVE, CREATE, KILL, EXPORT.
# shellcheck shell=sh
here=$(dirname "$(realpath "$0")")
# Processes to end, in order.
pids=
server=
end() {
    for pid in $pids $server; do kill "$pid" 2>/dev/null || true; done
    wait
}
trap end EXIT
trap 'exit 143' TERM INT

has() { command -v "$1" >/dev/null 2>&1; }

result() { # passed|FAILED|left-out SECONDS WORDS: a line of the table
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$SUITE" "$3" >>"$RESULTS"
}

left_out() { # WORDS
    result left-out 0 "$1"
    exit 0
}

needs() { # TOOL=PACKAGE...: of Debian
    for pair in "$@"; do
        has "${pair%%=*}" || left_out "there is no ${pair%%=*}: apt-get install --no-remove ${pair#*=}"
    done
}

since() { # SECONDS.NANOSECONDS
    echo "$1 $(date +%s.%N)" | awk '{ printf "%.1f", $2 - $1 }'
}

tried() { # WORDS COMMAND...: one line of the table. Some tools say their progress by the million, so only the end of it is kept.
    words=$1
    shift
    started=$(date +%s.%N)
    # A function of ours has the time that its suite has.
    case $(command -v "$1") in */*) set -- timeout --foreground --kill-after=10 "${SECONDS_MAX:-300}" "$@" ;; esac
    if "$@" >"$WORK/said" 2>&1; then outcome=passed; else outcome=FAILED; fi
    result "$outcome" "$(since "$started")" "$words"
    [ "$outcome" = passed ] && return 0
    { echo "--- $words: $*" && tail -c 4000 "$WORK/said"; } >>"$WORK/failures"
    return 1
}

disk_number=0
fresh() { # BYTES: another disk, empty, and its server; its clients say $uri
    stop
    disk_number=$((disk_number + 1))
    NAME=$SUITE-$$-$disk_number
    FOLDER=$WORK/disk-$disk_number
    SOCKET=$WORK/socket-$disk_number
    BYTES=$1
    export NAME FOLDER SOCKET BYTES
    # For those who name the export by $NAME.
    export_name=$(eval "echo \"$EXPORT\"")
    uri="nbd+unix:///$export_name?socket=$SOCKET"
    mkdir "$FOLDER"
    [ -z "$CREATE" ] || sh -c "$CREATE" >>"$WORK/server.log" 2>&1
    start
}

start() { # the same disk again
    # Killing it must not kill a shell in its place.
    sh -c "exec $SERVE" >>"$WORK/server.log" 2>&1 &
    server=$!
    tries=0
    until answers; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ] || ! kill -0 "$server" 2>/dev/null; then
            result FAILED 0 "the server does not start: $(tail -n 1 "$WORK/server.log")"
            exit 1
        fi
        sleep 0.1
    done
}

answers() { # A socket alone does not tell: one that was killed leaves it behind.
    python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$SOCKET" 2>/dev/null
}

stop() { # in good order, so that what it keeps open is closed
    [ -n "$server" ] || return 0
    kill -INT "$server" 2>/dev/null || true
    wait "$server" || true
    server=
}

strike() { # without a word
    PID=$server sh -c "$KILL" 2>/dev/null || true
}

kill_server() {
    strike
    wait "$server" 2>/dev/null || true
    server=
}
