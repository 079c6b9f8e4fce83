#!/bin/bash
# gridbackup over folder peers ($PEERS, three, of which $TOLERATE, one, may be lost), or, as gridbackup-s3 (a copy or a link), on the runner's S3 server
# alone. That server has to heed conditions (SERVER=moto; rclone ignores them, and is refused as a voter).
. "$(dirname "$0")/lib.sh"
GRIDBACKUP=${GRIDBACKUP:-gridbackup}
export GRIDBACKUP_HOME=$DIR/home
create() {
  "$GRIDBACKUP" init --name bench --phrase-out "$DIR/words" --tolerate "$1" || return
  shift
  local i=0
  for peer in "$@"; do i=$((i + 1)); "$GRIDBACKUP" peer add "peer$i" "$peer" || return; done
  "$GRIDBACKUP" disk create vm --size "$SIZE"
}
case $verb in
version) "$GRIDBACKUP" --version ;;
start)
  if [ ! -d "$DIR/home" ]; then
    case $0 in
    *-s3.sh) create 0 "s3://$S3_BUCKET/disk?endpoint=$S3_ENDPOINT" ;;
    *) peers=(); for i in $(seq "${PEERS:-3}"); do mkdir -p "$DIR/peer$i"; peers+=("dir:$DIR/peer$i"); done; create "${TOLERATE:-1}" "${peers[@]}" ;;
    esac >>"$DIR/log" 2>&1 || exit
  fi
  bg "$GRIDBACKUP" disk serve vm --nbd "unix:$DIR/sock"; wait_sock "$DIR/sock" && echo "nbd+unix:///vm?socket=$DIR/sock" ;;
# The end of a serve is a commit: the peers have all, and what the journal has is not needed any more.
stop) p=$(cat "$DIR/pid"); kill -INT "$p" 2>/dev/null; while kill -0 "$p" 2>/dev/null; do sleep 0.02; done; rm -f "$DIR/sock" ;;
cold) rm -rf "$DIR/home/disks"; find "$DIR" -path '*/peer*' -type f -exec dd if={} iflag=nocache count=0 status=none \; ;;
esac
