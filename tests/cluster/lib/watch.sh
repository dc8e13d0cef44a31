#!/usr/bin/env bash
# watch.sh ID: outlives the script that started a run and removes everything that the run leaves.
set -euo pipefail
# shellcheck source=SCRIPTDIR/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=SCRIPTDIR/cgroups.sh
. "$CLUSTER_DIR/lib/cgroups.sh"
# shellcheck source=SCRIPTDIR/run.sh
. "$CLUSTER_DIR/lib/run.sh"

run=$RUNS/$1
cd /
flock "$run/owner" true
# The owner has gone, perhaps killed before it could end the run itself.
if [ ! -e "$run/kept" ] && ! is_free "$run/lock"; then kill -KILL "$(cat "$run/pid")" || true; fi
flock "$run/lock" true
remove_run "$1"
