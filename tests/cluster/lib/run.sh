# shellcheck shell=bash
# The life of a run, seen from outside its namespaces: start, enter, end, sweep.
#
# A run is a folder $RUNS/ID with
#   owner   locked by the script that started it, for as long as that lives
#   lock    locked by the `unshare` process that holds the namespaces; when it dies, all in them dies
#   pid     that process
#   kept    exists when the run is to outlive its owner
# and cgroups of the same name. A watcher (watch.sh) waits on the two locks and removes everything, so
# that it is done once, in one place, however the run ended.

# start_run ID KEEP: await_ready follows.
start_run() {
  local id=$1 keep=$2 run=$RUNS/$1 sweeping
  mkdir -p "$RUNS" "$LOGS"
  # Nobody may sweep between the making of a run's folder and the locking of it.
  exec {sweeping}>"$TESTBED/lock"
  flock "$sweeping"
  sweep_runs
  mkdir -p "$run" "$LOGS/$id"
  ln -sfn "$id" "$LOGS/latest"
  exec {OWNER_LOCK}>"$run/owner" {RUN_LOCK}>"$run/lock"
  flock "$OWNER_LOCK"
  flock "$RUN_LOCK"
  setsid bash "$CLUSTER_DIR/lib/watch.sh" "$id" </dev/null >"$LOGS/$id/watch" 2>&1 \
    {OWNER_LOCK}>&- {RUN_LOCK}>&- {sweeping}>&- &
  make_cgroups "$id"
  exec {RUN_OUTPUT}< <(launch "$id" "$keep" {sweeping}>&-)
  echo $! >"$run/pid"
  # From here on only the namespaces' first process holds the run.
  exec {RUN_LOCK}>&- {sweeping}>&-
}

# Becomes the process that holds the namespaces. Its end is the end of everything in them, and unless the
# run is to be kept it ends with this script, even when that is killed.
launch() {
  local id=$1 keep=$2 tie=(setpriv --pdeathsig KILL)
  [ "$keep" = no ] || tie=(setsid)
  exec {OWNER_LOCK}>&- </dev/null 2>"$LOGS/$id/sandbox"
  join_cgroups "$id"
  exec "${tie[@]}" unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child --mount-proc \
    bash "$CLUSTER_DIR/lib/inside.sh" "$id" "$RUN_LOCK"
}

# Passes on what the sandbox says until it is ready; fails when it ends before.
await_ready() {
  local line
  while read -r line <&"$RUN_OUTPUT"; do
    [ "$line" != READY ] || { exec {RUN_OUTPUT}<&-; return 0; }
    say "$line"
  done
  return 1
}

# enter_run ID COMMAND…: becomes COMMAND inside the run.
enter_run() {
  local id=$1 pid
  shift
  pid=$(cat "$RUNS/$id/pid")
  join_cgroups "$id" daemons
  exec nsenter --target "$pid" --mount --net --ipc --uts --cgroup --pid="/proc/$pid/ns/pid_for_children" \
    bash "$CLUSTER_DIR/lib/command.sh" "$id" "$PWD" "$@"
}

# end_run ID: ends a run and returns when nothing of it is left.
end_run() {
  is_free "$RUNS/$1/lock" || kill -KILL "$(cat "$RUNS/$1/pid")" 2>/dev/null || true
  [ -z "${OWNER_LOCK:-}" ] || exec {OWNER_LOCK}>&- {RUN_LOCK}>&-
  for _ in {1..150}; do
    [ -e "$RUNS/$1" ] || return 0
    sleep 0.1
  done
  say "the run $1 has not gone in 15 s; the next start removes what is left of it"
}

# is_free FILE: whether nobody holds the lock on it.
is_free() {
  [ -e "$1" ] || return 0
  flock --nonblock "$1" true
}

remove_run() {
  remove_cgroups "$1" || say "cgroups of run $1 are busy"
  rm -rf "${RUNS:?}/$1"
}

# Removes what runs left whose watcher was killed as well, and all logs but those of the last runs.
sweep_runs() {
  local folder old
  for folder in "$RUNS"/*/; do
    [ -d "$folder" ] || continue
    if is_free "$folder/owner" && is_free "$folder/lock"; then remove_run "$(basename "$folder")"; fi
  done
  sweep_cgroups
  for old in $(find "$LOGS" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort -r | tail -n +3); do
    [ -e "$RUNS/$old" ] || rm -rf "${LOGS:?}/$old"
  done
}

# The id of the run that `sandbox --keep` left up, or nothing.
kept_run() {
  local id
  id=$(cat "$KEPT" 2>/dev/null) || return 0
  if [ -n "$id" ] && [ -e "$RUNS/$id" ] && ! is_free "$RUNS/$id/lock"; then echo "$id"; fi
}
