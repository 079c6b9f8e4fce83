#!/bin/bash
# gridbackup publish (trusting its index; --verify with GRIDBACKUP_ARGS; the guard of deletions raised, because the change deletes some)
case $1 in
version) "${GRIDBACKUP:-gridbackup}" --version ;;
sync)
    # A folder that was made anew is published to a new server: an earlier one's inventory knows nothing of it.
    export GRIDBACKUP_HOME=${BENCH_DIR:-/tmp}/gridbackup-$(stat -c %i-%W "$2")
    exec "${GRIDBACKUP:-gridbackup}" publish "$2" "s3://$S3_BUCKET/$3?endpoint=$S3_ENDPOINT" --max-delete 10000 ${GRIDBACKUP_ARGS:-} ;;
esac
