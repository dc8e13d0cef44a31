# shellcheck shell=bash
# What every script of the test bed knows: where things lie, and how it speaks.
# shellcheck disable=SC2034 # the names are for the scripts that source this file
# Sourced, never run. Knows nothing of Kubernetes.

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPOSITORY=$(cd "$CLUSTER_DIR/../.." && pwd)
# One folder for all that is built, kept or logged; `cargo clean` is the way to be rid of it.
TESTBED=${INFERNO_TESTBED_DIR:-$REPOSITORY/target/testbed}
TOOLS_BIN=$TESTBED/bin
IMAGES=$TESTBED/images
RUNS=$TESTBED/runs
LOGS=$TESTBED/logs
KEPT=$TESTBED/kept

# The prefix by which our cgroups are recognised; a run's id follows.
CGROUP_PREFIX=inferno-testbed-

# Where a run's folder appears inside its sandbox: short, because socket paths end at 108 bytes, and
# always the same, because it is written into certificates' kubeconfigs and configuration files.
INSIDE=/run/inferno

say() { printf '[testbed] %s\n' "$*" >&2; }

fail() {
  printf '[testbed] error: %s\n' "$*" >&2
  exit 1
}

require_root() {
  [ "$(id -u)" = 0 ] || fail "the test bed makes namespaces and mounts, so it must run as root (try: sudo -E $0)"
}

# seconds_since START, where START is an earlier value of $EPOCHREALTIME.
seconds_since() {
  local micros=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
  printf '%d.%d' $((micros / 1000000)) $((micros / 100000 % 10))
}
