#!/bin/bash
# restart-apiserver.sh [SECONDS]   kill the API server as a crash does, and start it again the same way after so many seconds (default 0).
set -e
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
NODE_NAME=node1; . $S/env.sh
if [ "$1" != inside ]; then
  exec nsenter -t $(cat $NS/box.pid) -m -p -n -u -i -- $S/restart-apiserver.sh inside ${1:-0}
fi
P=$(cat $RUN/apiserver.pid)
mapfile -d '' -t ARGS < /proc/$P/cmdline
kill -9 $P; while kill -0 $P 2>/dev/null && ! grep -q 'State:.Z' /proc/$P/status 2>/dev/null; do sleep 0.05; done
sleep $2
setsid nohup "${ARGS[@]}" >> $LOGS/apiserver.log 2>&1 < /dev/null & P=$!; echo $P > $RUN/apiserver.pid
t0=$(date +%s.%N)
until [ "$($B/kubectl get --raw /readyz 2>/dev/null)" = ok ]; do sleep 0.1; kill -0 $P || { tail $LOGS/apiserver.log; exit 1; }; done
python3 -c "print('ready again after %.1fs' % ($(date +%s.%N)-$t0))"
