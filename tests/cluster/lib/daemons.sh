# shellcheck shell=bash
# shellcheck disable=SC2034 # some names are for pki.sh
# The cluster itself: which programs run, with which flags, in which order, and when they are ready.

NODE=node
NODE_ADDRESS=10.244.0.1
POD_NETWORK=10.244.0.0/24
SERVICE_NETWORK=10.96.0.0/16
API_SERVICE_ADDRESS=10.96.0.1
ETCD=http://127.0.0.1:2379

# Process id → name of what start_daemon started.
declare -A DAEMONS=()

# start_cluster STARTED: brings the cluster up and returns when pods can be created. The order follows the
# longest chain (certificates, API server, kubelet, node ready); everything else runs beside it.
start_cluster() {
  start_etcd
  start_containerd
  make_pki
  start_apiserver
  import_images &
  local importing=$!
  await 60 'the API server' api_is_ready
  echo "API server ready after $(seconds_since "$1") s"
  start_controller_manager
  start_scheduler
  start_kubelet
  start_proxy
  start_dns
  wait "$importing" || give_up 'importing the images failed' import
  await 60 'the node' node_is_ready
  await 30 'the default service account' kubectl_quietly get serviceaccount default
  await 30 'the cluster DNS' curl --silent --fail "http://$NODE_ADDRESS:8181/ready"
  echo "node ready after $(seconds_since "$1") s"
}

# start_daemon NAME COMMAND…
start_daemon() {
  local name=$1
  shift
  # Started in the run's folder, because some write into their working folder when all goes wrong.
  (cd "$INSIDE" && exec "$@" </dev/null >"$INSIDE/log/$name" 2>&1) &
  DAEMONS[$!]=$name
}

# await SECONDS WHAT COMMAND…: repeats COMMAND until it succeeds; gives up early when a daemon has ended.
await() {
  local deadline=$((SECONDS + $1)) what=$2 process
  shift 2
  until "$@" >/dev/null 2>&1; do
    for process in "${!DAEMONS[@]}"; do
      kill -0 "$process" 2>/dev/null || give_up "${DAEMONS[$process]} has ended" "${DAEMONS[$process]}"
    done
    [ "$SECONDS" -lt "$deadline" ] || give_up "$what is not ready in time" apiserver kubelet containerd
    sleep 0.1
  done
}

give_up() {
  local name
  echo "error: $1"
  shift
  for name in "$@"; do
    echo "the last lines of $name:"
    tail -n 15 "$INSIDE/log/$name" | cut -c 1-300 || true
  done
  exit 1
}

start_etcd() {
  # Nothing here is worth an fsync.
  start_daemon etcd "$TOOLS_BIN/etcd" --name testbed --data-dir "$INSIDE/etcd" --unsafe-no-fsync \
    --quota-backend-bytes=536870912 --log-level=warn \
    --listen-client-urls="$ETCD" --advertise-client-urls="$ETCD" \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster=testbed=http://127.0.0.1:2380
}

start_apiserver() {
  local command=("$TOOLS_BIN/kube-apiserver" --etcd-servers="$ETCD"
    --bind-address=0.0.0.0 --advertise-address="$NODE_ADDRESS" --secure-port=6443 --endpoint-reconciler-type=lease
    --service-cluster-ip-range="$SERVICE_NETWORK"
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt"
    --service-account-issuer=https://kubernetes.default.svc.cluster.local
    --service-account-key-file="$PKI/accounts.pub" --service-account-signing-key-file="$PKI/accounts.key"
    --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key"
    --kubelet-preferred-address-types=InternalIP
    --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
    --requestheader-extra-headers-prefix=X-Remote-Extra-
    --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key"
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
    --allow-privileged=true --profiling=false)
  start_daemon apiserver "${command[@]}"
  # What `apiserver stop` and `apiserver start` go by.
  echo $! >"$INSIDE/apiserver.pid"
  printf '%q ' exec "${command[@]}" >"$INSIDE/apiserver.command"
}

start_controller_manager() {
  # By default it limits itself to 20 requests a second, and then takes 4 s to begin.
  local config=$PKI/controller-manager.kubeconfig
  start_daemon controller-manager "$TOOLS_BIN/kube-controller-manager" --kubeconfig="$config" \
    --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" \
    --kube-api-qps=500 --kube-api-burst=1000 --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials=true \
    --horizontal-pod-autoscaler-sync-period=5s \
    --service-account-private-key-file="$PKI/accounts.key" --root-ca-file="$PKI/ca.crt"
}

start_scheduler() {
  local config=$PKI/scheduler.kubeconfig
  start_daemon scheduler "$TOOLS_BIN/kube-scheduler" --kubeconfig="$config" \
    --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" \
    --bind-address=127.0.0.1 --leader-elect=false
}

start_proxy() {
  start_daemon proxy "$TOOLS_BIN/kube-proxy" --kubeconfig="$PKI/admin.kubeconfig" --hostname-override="$NODE" \
    --proxy-mode=nftables --cluster-cidr="$POD_NETWORK" --conntrack-max-per-core=0
}

start_kubelet() {
  # On v1 since 1.35 the kubelet runs only when told that it may. No eviction: the machine's disk and memory
  # are shared with the build.
  cat >"$INSIDE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$INSIDE/containerd.sock
podLogsDir: $INSIDE/log/pods
volumePluginDir: $INSIDE/kubelet/plugins
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /
failSwapOn: false
makeIPTablesUtilChains: false
readOnlyPort: 0
resolvConf: ""
clusterDNS: [$NODE_ADDRESS]
clusterDomain: cluster.local
serializeImagePulls: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
YAML
  start_daemon kubelet "$TOOLS_BIN/kubelet" --config="$INSIDE/kubelet.yaml" --kubeconfig="$PKI/$NODE.kubeconfig" \
    --hostname-override="$NODE" --node-ip="$NODE_ADDRESS" --root-dir="$INSIDE/kubelet" --cert-dir="$INSIDE/kubelet/pki"
}

start_containerd() {
  mkdir -p "$INSIDE/cni"
  cat >"$INSIDE/cni/10-pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "$INSIDE/cni/addresses", "ranges": [[{"subnet": "$POD_NETWORK"}]],
           "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
  # AppArmor profiles would be loaded into the machine's kernel. Where CAP_SYS_RESOURCE is missing, as in
  # many containers, a negative OOM score is refused.
  cat >"$INSIDE/containerd.toml" <<TOML
version = 2
root = "$INSIDE/containerd"
state = "/run/containerd"
[grpc]
  address = "$INSIDE/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$INSIDE/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.test/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$INSIDE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
TOML
  start_daemon containerd containerd --config "$INSIDE/containerd.toml"
}

# An overlay cannot lie on an overlay, as when the checkout is inside a container: then files are copied.
snapshotter() {
  case $(stat --file-system --format %T "$INSIDE") in
    overlayfs) echo native ;;
    *) echo overlayfs ;;
  esac
}

import_images() {
  local archive
  until ctr --address "$INSIDE/containerd.sock" version >/dev/null 2>&1; do sleep 0.1; done
  for archive in "$IMAGES"/*.tar; do
    ctr --address "$INSIDE/containerd.sock" --namespace k8s.io images import --snapshotter "$(snapshotter)" "$archive" || return 1
  done >"$INSIDE/log/import" 2>&1
}

# Names outside the cluster do not exist: that is an answer, where a silent server would be a timeout.
start_dns() {
  cat >"$INSIDE/Corefile" <<COREFILE
cluster.local:53 {
  bind $NODE_ADDRESS
  errors
  ready $NODE_ADDRESS:8181
  kubernetes cluster.local {
    kubeconfig $PKI/admin.kubeconfig
    pods insecure
    ttl 1
  }
}
.:53 {
  bind $NODE_ADDRESS
  errors
  template ANY ANY . {
    rcode NXDOMAIN
  }
}
COREFILE
  start_daemon dns "$TOOLS_BIN/coredns" -conf "$INSIDE/Corefile"
}

api_is_ready() {
  curl --silent --fail --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" \
    "https://$NODE_ADDRESS:6443/readyz"
}

node_is_ready() {
  kubectl_quietly get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True
}

kubectl_quietly() { KUBECACHEDIR=$INSIDE/cache/kubectl "$TOOLS_BIN/kubectl" --kubeconfig "$PKI/admin.kubeconfig" "$@" 2>/dev/null; }
