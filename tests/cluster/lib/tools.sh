# shellcheck shell=bash
# Builds the cluster's programs from the one Go module in ../tools, which pins them together: most of what they are made of
# is the same, and is compiled once. Kubernetes' own versions lead; where another program asks for a newer one, all get it.

TOOLS=$CLUSTER_DIR/tools

# Two compilers at a time at most: linking the API server takes 2 GB.
GO_PARALLEL=${INFERNO_TESTBED_JOBS:-2}

PROGRAMS=(
  ./etcd ./coredns helm.sh/helm/v4/cmd/helm sigs.k8s.io/metrics-server/cmd/metrics-server
  k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}
)

# Skips when nothing has changed.
build_tools() {
  local stamp=$TOOLS_BIN/.stamp now
  now=$(tools_stamp)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then return 0; fi
  command -v go >/dev/null || fail "Go 1.26.4 or later is needed to build Kubernetes; install it or put it on PATH"
  mkdir -p "$TOOLS_BIN"
  say "building Kubernetes, etcd, CoreDNS, helm and the metrics server with Go (about 10 min when nothing is cached)"
  local started=$EPOCHREALTIME
  (cd "$TOOLS" && go_build) || fail "building the cluster's programs failed"
  printf '%s' "$now" >"$stamp"
  say "built the cluster's programs in $(seconds_since "$started") s"
}

# What the programs depend on: their pins and sources, and this file.
tools_stamp() {
  cat "$TOOLS"/go.* "$TOOLS"/*/main.go "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1
}

# The version is stamped in, because helm's kubeVersion checks, kubectl's skew warning and the node's
# reported version read it; an unstamped build says v0.0.0. Profile-guided optimization is off, because it would
# compile for each program anew what all of them share.
go_build() {
  local version minor flags='-s -w' package
  version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[^ ]*\).*/\1/p' go.mod)
  minor=$(cut -d. -f2 <<<"$version")
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=0000000000000000000000000000000000000000"
    flags+=" -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  CGO_ENABLED=0 nice go build -p "$GO_PARALLEL" -trimpath -pgo=off -ldflags "$flags" -o "$TOOLS_BIN/" "${PROGRAMS[@]}"
}
