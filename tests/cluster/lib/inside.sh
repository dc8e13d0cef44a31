#!/usr/bin/env bash
# inside.sh ID LOCK: the first process of a sandbox. Arranges its mounts and network, starts the cluster, says
# READY on its standard output, and waits. When it ends, the kernel ends everything else in here.
# Everything it writes lies in the run's folder, in a tmpfs, or in the run's logs.
set -euo pipefail
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=SCRIPTDIR/cgroups.sh
. "$CLUSTER_DIR/lib/cgroups.sh"
# shellcheck source=SCRIPTDIR/pki.sh
. "$CLUSTER_DIR/lib/pki.sh"
# shellcheck source=SCRIPTDIR/daemons.sh
. "$CLUSTER_DIR/lib/daemons.sh"

ID=$1 LOCK=$2
# Only the `unshare` process outside holds the lock: its end is what everybody waits for.
exec {LOCK}>&-

main() {
  local started=$EPOCHREALTIME
  arrange_mounts
  arrange_cgroups
  arrange_sysctls
  arrange_network
  export TMPDIR=$INSIDE/tmp
  mkdir -p "$TMPDIR"
  start_cluster "$started"
  echo READY
  # The caller's pipe is not ours any longer: a kept cluster must not hold it open.
  exec >&2
  watch_daemons
}

# The machine's /run, /var/lib and /var/log are hidden behind copies that vanish with this mount namespace.
arrange_mounts() {
  mount --make-rprivate /
  # Pods' volume mounts must reach the node; `unshare` has already cut this namespace off from the machine's.
  mount --make-rshared /
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "$INSIDE" /run/netns /run/lock
  mount --bind "$RUNS/$ID" "$INSIDE"
  mkdir -p "$INSIDE/log"
  mount --bind "$LOGS/$ID" "$INSIDE/log"
  hide_writes /var/lib
  mount -t tmpfs tmpfs /var/log
  point_resolver_at_cluster
}

# hide_writes FOLDER: reads see the machine's, writes go to memory.
hide_writes() {
  local layers=/run/overlay$1
  mkdir -p "$layers/upper" "$layers/work"
  mount -t overlay -o "lowerdir=$1,upperdir=$layers/upper,workdir=$layers/work" overlay "$1"
  # A checkout in there stays real, or a test's results would be lost.
  case $REPOSITORY/ in "$1"/*) rebind_repository ;; esac
}

rebind_repository() {
  # By the descriptor that was opened before, and not by the path that it would be resolved to.
  mount --no-canonicalize --bind "/proc/$$/fd/$REPOSITORY_FD" "$REPOSITORY"
}

# Clients on the node resolve names as a pod in the namespace `default` does.
point_resolver_at_cluster() {
  local target
  target=$(realpath -m /etc/resolv.conf)
  case $target in /run/*) mkdir -p "$(dirname "$target")" && touch "$target" ;; esac
  printf 'nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n' \
    "$NODE_ADDRESS" >"$INSIDE/resolv.conf"
  mount --bind "$INSIDE/resolv.conf" "$target"
}

# The same tree as on the machine, with this run's cgroups as its roots.
arrange_cgroups() {
  local controllers
  if is_cgroup_v2; then
    mount -t cgroup2 cgroup2 "$CGROUPS"
    # Processes may live in leaves only.
    mkdir "$CGROUPS/daemons"
    echo $$ >"$CGROUPS/daemons/cgroup.procs"
    hand_on_controllers "$CGROUPS"
    return
  fi
  mount -t tmpfs -o mode=755 tmpfs "$CGROUPS"
  while read -r controllers; do
    mkdir -p "$CGROUPS/${controllers#name=}"
    mount -t cgroup -o "${controllers/#name=/none,name=}" cgroup "$CGROUPS/${controllers#name=}"
  done < <(v1_hierarchies)
}

# The kubelet sets these for the whole machine. It finds files here that hold the values it wants already.
arrange_sysctls() {
  local wanted file
  mkdir -p "$INSIDE/sysctl"
  for wanted in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$INSIDE/sysctl/$(basename "${wanted%=*}")
    echo "${wanted#*=}" >"$file"
    [ ! -e "/proc/sys/${wanted%=*}" ] || mount --bind "$file" "/proc/sys/${wanted%=*}"
  done
}

# The node is this network namespace. Its address is on the loopback device, so that it exists before any
# pod does; each pod hangs on a point-to-point link, so that all traffic is routed and Services work between
# pods without the machine-wide bridge filter.
arrange_network() {
  ip link set lo up
  ip address add "$NODE_ADDRESS/32" dev lo
  # Without a default route the node would not even try to send to a Service's address.
  ip route add "$SERVICE_NETWORK" dev lo src "$NODE_ADDRESS"
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# A daemon that ends is a fault worth a line in the log; the cluster goes on without it.
watch_daemons() {
  local ended code
  while [ ${#DAEMONS[@]} -gt 0 ]; do
    code=0
    wait -n -p ended "${!DAEMONS[@]}" || code=$?
    [ -n "${ended:-}" ] || break
    echo "daemon ${DAEMONS[$ended]} ended with status $code"
    unset "DAEMONS[$ended]"
  done
  while :; do sleep infinity; done
}

exec {REPOSITORY_FD}<"$REPOSITORY"
main
