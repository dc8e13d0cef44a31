# shellcheck shell=bash
# One cgroup per sandbox in every hierarchy, under the caller's own, so that everything a run starts is
# found by its cgroup, whatever became of it. The sandbox unshares its cgroup namespace in there and so sees
# nothing else: two sandboxes, and the machine's own container runtime, never meet.

CGROUPS=/sys/fs/cgroup

is_cgroup_v2() { [ -e "$CGROUPS/cgroup.controllers" ]; }

# The controllers of this machine's v1 hierarchies, one line each: `cpu`, `cpu,cpuacct`, `name=systemd`.
v1_hierarchies() { awk -F: '$1 != 0 && $2 != "" { print $2 }' /proc/self/cgroup; }

# The folders in which a run's cgroups are made.
cgroup_parents() {
  # v2 lets only a cgroup without processes hand controllers on, and the root: the caller's own will not do.
  if is_cgroup_v2; then echo "$CGROUPS"; return; fi
  local controllers path folder
  while IFS=: read -r _ controllers path; do
    folder=$CGROUPS/${controllers#name=}
    # In a container the path may be the host's, of which nothing is visible here.
    [ -z "$controllers" ] || [ ! -d "$folder" ] || { [ -d "$folder$path" ] && echo "${folder}${path%/}" || echo "$folder"; }
  done </proc/self/cgroup
}

make_cgroups() {
  local parent group
  while read -r parent; do
    group=$parent/$CGROUP_PREFIX$1
    if is_cgroup_v2; then
      hand_on_controllers "$parent" || fail "cannot hand cgroup controllers on from $parent (processes in it?)"
    fi
    mkdir -p "$group"
    echo "$group" >>"$RUNS/$1/cgroups"
    case $parent in
      *cpuset*) # A new cpuset is empty, and nothing may run in it.
        cat "$parent/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$parent/cpuset.mems" >"$group/cpuset.mems"
        ;;
    esac
    # A whole cluster must not weigh as little as one process beside it.
    [ ! -e "$group/cpu.shares" ] || echo 8192 >"$group/cpu.shares"
    [ ! -e "$group/cpu.weight" ] || echo 800 >"$group/cpu.weight"
  done < <(cgroup_parents)
}

hand_on_controllers() {
  local controller
  for controller in cpu cpuset memory pids io; do
    grep -qw "$controller" "$1/cgroup.controllers" || continue
    grep -qw "$controller" "$1/cgroup.subtree_control" || echo "+$controller" >"$1/cgroup.subtree_control" || return 1
  done 2>/dev/null
}

# join_cgroups RUN [LEAF]: moves the calling (sub)shell. With v2 only leaves may hold processes.
join_cgroups() {
  local group
  while read -r group; do
    if is_cgroup_v2 && [ -n "${2:-}" ]; then group=$group/$2; fi
    echo "$BASHPID" >"$group/cgroup.procs"
  done <"$RUNS/$1/cgroups"
}

# remove_cgroups RUN: ends what still lives in them and removes them, for up to ten seconds: a killed
# process leaves its cgroup only when its last thread has gone.
remove_cgroups() {
  local group processes
  [ -e "$RUNS/$1/cgroups" ] || return 0
  for _ in {1..100}; do
    processes=
    while read -r group; do
      processes+=" $(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | tr '\n' ' ')"
      find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done <"$RUNS/$1/cgroups"
    any_folder "$RUNS/$1/cgroups" || return 0
    # shellcheck disable=SC2086 # a list of process ids
    [ -z "${processes// /}" ] || kill -KILL $processes 2>/dev/null || true
    sleep 0.1
  done
  return 1
}

any_folder() {
  local folder
  while read -r folder; do [ ! -d "$folder" ] || return 0; done <"$1"
  return 1
}

# Removes the cgroups of runs of which nothing else is left, as after a power cut of `target/`.
sweep_cgroups() {
  local group
  while read -r group; do
    # A living sandbox has at least its first process in there.
    [ -n "$(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null)" ] \
      || find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done < <(find "$CGROUPS" -maxdepth 6 -type d -name "$CGROUP_PREFIX*" -prune 2>/dev/null)
}
