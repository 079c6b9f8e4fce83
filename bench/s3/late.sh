# sourced after the benchmark's s3/server.sh: with DELAY_MS everything between tool and server is so late in each direction.
# LATE_PROXY names late-proxy.py of this folder's parent.
eval "$(declare -f start_server | sed '1s/start_server/start_near/')"
start_server() {
  start_near "$@"; local port=$2
  [ -n "${DELAY_MS:-}" ] || return 0
  local server=$SERVER_PID late=$((port + 1))
  "${LATE_PROXY:?}" "$late" "$port" "$DELAY_MS" & PROXY_PID=$!
  for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$late") 2>/dev/null && break; sleep 0.1; done
  export S3_ENDPOINT=http://127.0.0.1:$late
  # Whoever ends the server ends the proxy.
  (while kill -0 "$server" 2>/dev/null; do sleep 0.2; done; kill "$PROXY_PID") &
}
