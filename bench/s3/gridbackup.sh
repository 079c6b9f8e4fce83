#!/bin/bash
# gridbackup publish (its own index; the usual guard of deletions raised, because the change deletes some)
case $1 in
version) "${GRIDBACKUP:-gridbackup}" --version ;;
sync)
    export GRIDBACKUP_HOME=${BENCH_DIR:-/tmp}/gridbackup-home
    # A new server is a new bucket: what an earlier one had is forgotten.
    [ -z "${SERVER_PID:-}" ] || { export GRIDBACKUP_HOME=$GRIDBACKUP_HOME-$SERVER_PID; }
    exec "${GRIDBACKUP:-gridbackup}" publish "$2" "s3://$S3_BUCKET/$3?endpoint=$S3_ENDPOINT" --max-delete 10000 ${GRIDBACKUP_ARGS:-} ;;
esac
