#!/usr/bin/env bash
# command.sh ID FOLDER COMMAND…: the last step into a sandbox: sets the environment and becomes COMMAND.
set -euo pipefail
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

id=$1 folder=$2
shift 2
# The working folder must be looked up again, in this mount namespace.
cd "$folder"
export KUBECONFIG=$INSIDE/pki/admin.kubeconfig PATH=$TOOLS_BIN:$PATH INFERNO_SANDBOX=$id
# Tests of what happens without an API server.
export INFERNO_TESTBED_APISERVER=$CLUSTER_DIR/apiserver
# Tests of what scales by the metrics API.
export INFERNO_TESTBED_METRICS=$CLUSTER_DIR/metrics
# `ctr images import` and the like find the cluster's containerd.
export CONTAINERD_ADDRESS=$INSIDE/containerd.sock CONTAINERD_NAMESPACE=k8s.io
# Caches of the clients belong to the cluster they describe, and go with it.
export KUBECACHEDIR=$INSIDE/cache/kubectl
export HELM_CACHE_HOME=$INSIDE/cache/helm HELM_CONFIG_HOME=$INSIDE/cache/helm HELM_DATA_HOME=$INSIDE/cache/helm
# There is no way out of the sandbox: a proxy would only be waited for.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export CARGO_NET_OFFLINE=true
# A background job of the script that called us ignores these.
exec env --default-signal=INT,QUIT "$@"
