# shellcheck shell=bash
# Builds the cluster's programs from the Go modules pinned in ../tools/, one module per family,
# so that each family gets exactly the third-party versions its upstream chose.

MODULES=$CLUSTER_DIR/tools

# Two compilers at a time at most: linking the API server takes 2 GB.
GO_PARALLEL=${INFERNO_TESTBED_JOBS:-2}

build_tools() {
  build_family etcd 'about 30 s' etcd build_plain go.etcd.io/etcd/server/v3
  build_family coredns 'about 1 min' coredns build_plain .
  build_family helm 'about 2 min' helm build_plain helm.sh/helm/v4/cmd/helm
  build_family metrics 'about 3 min' metrics-server build_plain sigs.k8s.io/metrics-server/cmd/metrics-server
  build_family kubernetes 'about 7 min' kube-apiserver build_kubernetes
}

# build_family NAME DURATION PROGRAM BUILDER ARGS…: skips when nothing of the family changed.
build_family() {
  local family=$1 duration=$2 program=$3 builder=$4
  shift 4
  local stamp=$TOOLS_BIN/.$family.stamp now
  now=$(family_stamp "$family")
  if [ -x "$TOOLS_BIN/$program" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then return 0; fi
  command -v go >/dev/null || fail "Go 1.26 or later is needed to build $family; install it or put it on PATH"
  mkdir -p "$TOOLS_BIN"
  say "building $family with Go ($duration when nothing is cached)"
  local started=$EPOCHREALTIME
  (cd "$MODULES/$family" && "$builder" "$program" "$@") || fail "building $family failed"
  printf '%s' "$now" >"$stamp"
  say "built $family in $(seconds_since "$started") s"
}

# What the family's programs depend on: its pins and this file.
family_stamp() {
  cat "$MODULES/$1"/* "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1
}

build_plain() {
  CGO_ENABLED=0 nice go build -p "$GO_PARALLEL" -trimpath -ldflags '-s -w' -o "$TOOLS_BIN/$1" "$2"
}

# The version is stamped in, because helm's kubeVersion checks, kubectl's skew warning and the node's
# reported version read it; an unstamped build says v0.0.0. Profile-guided optimization is off, so that all
# six programs share one set of compiled packages.
build_kubernetes() {
  local version minor flags='-s -w' package
  version=$(sed -n 's/^require k8s.io\/kubernetes //p; s/^\tk8s.io\/kubernetes \(v[^ ]*\).*/\1/p' go.mod | head -n 1)
  minor=$(cut -d. -f2 <<<"$version")
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=0000000000000000000000000000000000000000"
    flags+=" -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  CGO_ENABLED=0 nice go build -p "$GO_PARALLEL" -trimpath -pgo=off -ldflags "$flags" -o "$TOOLS_BIN/" \
    k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}
}
