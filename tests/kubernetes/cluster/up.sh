#!/bin/bash
# up.sh [NODES]   start the cluster (default one node), or add nodes up to that number. API at https://10.200.0.2:6443.
set -e
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
N=${1:-1}; t0=$(date +%s.%N)
mkdir -p $STATE $LOGS; $S/certs.sh
ip link show k8sbr0 >/dev/null 2>&1 || { ip link add k8sbr0 type bridge; ip addr add $HOST_IP/24 dev k8sbr0; ip link set k8sbr0 up; }
for i in $(seq $N); do
  export NODE_NAME=node$i; . $S/env.sh
  alive $NS && { echo "$NODE_NAME is already up"; continue; }
  mkdir -p $NS; rm -rf $NS/box.* $NS/run
  setsid nohup unshare --mount --pid --fork --net --uts --ipc --mount-proc --propagation private $S/box-init.sh >> $LOGS/box-$NODE_NAME.log 2>&1 < /dev/null &
  U=$!
  for j in $(seq 100); do [ -f $NS/box.started ] && break; sleep 0.05; done
  P=$(ps -o pid= --ppid $U | tr -d ' '); echo $P > $NS/box.pid     # that namespace's PID 1, seen from here
  ip link add k8sv$i type veth peer name eth0 netns $P; ip link set k8sv$i master k8sbr0 up
  touch $NS/box.net
  for j in $(seq 6000); do   # ten minutes: two cores that others use take four for the images
    [ -f $NS/box.ready ] && break; kill -0 $P 2>/dev/null || { tail -20 $LOGS/box-$NODE_NAME.log; exit 1; }; sleep 0.1; done
  cat $NS/box.ready
done
kubectl apply -f $S/manifests/dns.yaml >/dev/null; kubectl apply -f $S/manifests/storageclass.yaml >/dev/null
kubectl -n kube-system rollout status deploy/coredns --timeout=60s
python3 -c "print('up in %.1fs' % ($(date +%s.%N)-$t0))"
echo "export KUBECONFIG=$KUBECONFIG PATH=$B:\$PATH"
