#!/bin/bash
# down.sh [--purge] [NODE ...]   kill each box's PID 1: the kernel kills what it held, mounts and networks go with it. --purge drops etcd, images, logs, certificates too.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
PURGE=; [ "$1" = --purge ] && { PURGE=1; shift; }
for d in ${@:-$(cd $STATE 2>/dev/null && ls -d node* 2>/dev/null)}; do
  alive $STATE/$d && kill -9 $(cat $STATE/$d/box.pid) && sleep 0.2
  ip link del k8sv${d#node} 2>/dev/null
  for i in 1 2 3 4 5 6 7 8 9 10; do for h in /sys/fs/cgroup/*/; do [ -d $h/k8s/$d ] && find $h/k8s/$d -depth -type d -exec rmdir {} \; 2>/dev/null; done; ls -d /sys/fs/cgroup/*/k8s/$d >/dev/null 2>&1 || break; sleep 0.2; done
  rm -rf $STATE/$d/box.* $STATE/$d/run $STATE/$d/kubelet
done
# raw block volumes of the dead nodes leave two loop devices each: the driver's, whose file has lost its place, and the kubelet's on top of it
for l in $(losetup -l -n -O NAME,BACK-FILE | awk '$2 ~ "^/v/v-[0-9a-f]+/image$" {print $1}'); do
  losetup -l -n -O NAME,BACK-FILE,BACK-INO | awk -v i=$(stat -c %i $l) '$2 == "/" && $3 == i {print $1}' | xargs -r -n1 losetup -d; losetup -d $l
done
if ! ls $STATE/node*/box.pid >/dev/null 2>&1; then
  ip link del k8sbr0 2>/dev/null; rmdir /sys/fs/cgroup/*/k8s 2>/dev/null; [ -n "$PURGE" ] && rm -rf $STATE $LOGS $PKI $K/admin.kubeconfig /tmp/hostpath_pv; fi
exit 0
