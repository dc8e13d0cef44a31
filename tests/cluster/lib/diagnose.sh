#!/usr/bin/env bash
# diagnose.sh: run inside a sandbox when its command has failed, says what the cluster looks like.
set -uo pipefail

section() { printf '\n---- %s\n' "$*"; }

section 'pods'
timeout 10 kubectl get pods --all-namespaces --output wide
section 'the last events'
timeout 10 kubectl get events --all-namespaces --sort-by=.lastTimestamp | tail -n 20
for log in $(find /run/inferno/log/pods -name '*.log' 2>/dev/null | sort | tail -n 12); do
  section "${log#/run/inferno/log/}"
  tail -n 12 "$log" | cut -c 1-300
done
for daemon in sandbox kubelet containerd; do
  section "$daemon: the last errors"
  grep -E '^E[0-9]|level=(error|fatal)|^daemon ' "/run/inferno/log/$daemon" | tail -n 6 | cut -c 1-300
done
exit 0
