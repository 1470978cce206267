# Shared settings, sourced by the other scripts. NODE_NAME=nodeN has the address 10.200.0.(N+1); node1 also runs the control plane.
umask 022   # what containerd unpacks and makes must be readable by all in a container, whoever starts it
export S="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"           # these scripts
export K="${TESTCLUSTER_DIR:-$HOME/.cache/llmos-testcluster}"    # binaries, images, certificates, state, logs
export B=${KBIN:-$K/bin} PKI=$K/pki LOGS=$K/logs STATE=$K/state
export NODE_NAME=${NODE_NAME:-node1}
export NODE_IP=10.200.0.$(( ${NODE_NAME#node} + 1 )) API_IP=10.200.0.2 HOST_IP=10.200.0.1
export POD_CIDR=10.244.0.0/16 SVC_CIDR=10.96.0.0/16 DNS_IP=10.96.0.10 API_SVC_IP=10.96.0.1
export NS=$STATE/$NODE_NAME                       # this node's state: containerd, kubelet, configuration, pid files
export RUN=$NS/run CTRD_SOCK=$NS/run/containerd.sock
export KUBECONFIG=$K/admin.kubeconfig
export PATH=$B:$PATH
# alive DIR   whether the node whose state is there runs: a pid alone may be another's, after the machine was started anew
alive() { [ -f "$1/box.pid" ] && tr '\0' ' ' < "/proc/$(cat "$1/box.pid")/cmdline" 2>/dev/null | grep -q box-init.sh; }
