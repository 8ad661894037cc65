#!/usr/bin/env bash
# The second trial, behind everything else: computes what is missing of it and commits finished records every half hour.
#
#   tools/second_trial.sh [--hours H]
#
# The code that runs is the registered one: the commit that results/second/REGISTERED names is checked out into a worktree
# of its own under runs/second, with an environment of its own, and no other commit will do. Stop it at any moment (Ctrl-C, kill,
# even kill -9: what computes then ends by itself in a few seconds); the same command goes on, here or in a clone of what is
# committed. After kill -9 the records of the last half hour are in results/second and not yet committed: the next start does it.
# The slices are those of CMRSEG_DATA, else data/acdc96, else those beside the repository. To pause it, for a timing say:
#   kill -STOP -- -$(cat runs/second/pid)     and to go on:   kill -CONT -- -$(cat runs/second/pid)
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "error: $1" >&2; exit 2; }

hours=()
case "${1:-}" in
  "") ;;
  --hours) [[ "${2:-}" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--hours needs a number, such as 2.5"; hours=(--hours "$2") ;;
  --help|-h) sed -n '2,/^set/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 0 ;;
  *) fail "$1 is no option: tools/second_trial.sh [--hours H]" ;;
esac

place=runs/second
registered=$(cat results/second/REGISTERED 2>/dev/null) || fail "results/second/REGISTERED is not there: nothing is registered"
[[ "$registered" =~ ^[0-9a-f]{40}$ ]] || fail "results/second/REGISTERED does not hold the 40 digits of a commit"
git merge-base --is-ancestor "$registered" HEAD 2>/dev/null ||
  fail "the registered commit $registered is not in this branch's history: fetch all of it (git fetch --unshallow)"
data=${CMRSEG_DATA:-}
for folder in data/acdc96 ../shared/data/acdc96; do [ -n "$data" ] || ! [ -d "$folder" ] || data=$folder; done
[ -d "$data" ] || fail "the real slices are not here: fetch them (make data), or set CMRSEG_DATA to their folder"
data=$(cd "$data" && pwd)

if ! git var GIT_COMMITTER_IDENT >/dev/null 2>&1; then  # a fresh machine, where git does not know who commits
  export GIT_AUTHOR_NAME="second trial" GIT_AUTHOR_EMAIL=second-trial@localhost
  export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
fi

mkdir -p "$place"
exec 9>"$place/lock"
# The sweep holds the lock as well, so that no second one starts beside it; one whose script was killed has soon ended.
flock -w "${SECOND_TRIAL_WAIT:-10}" 9 || fail "it runs already in this clone, as process group $(cat "$place/pid" 2>/dev/null || echo '?') (perhaps paused)"

code=$place/$registered
git worktree prune
[ -d "$code" ] || git worktree add --quiet --detach "$code" "$registered" 9>&-
[ "$(git -C "$code" rev-parse HEAD)" = "$registered" ] && [ -z "$(git -C "$code" status --porcelain)" ] ||
  fail "$code is not the registered commit, or was changed: remove it (git worktree remove --force $code)"
code=$(cd "$code" && pwd)

python=${SECOND_TRIAL_PYTHON:-$place/venv/bin/python}
if [ -z "${SECOND_TRIAL_PYTHON:-}" ] && ! cmp -s "$code/requirements.txt" "$place/venv/made-of"; then
  echo "making an environment from the registered requirements; some minutes"
  rm -rf "$place/venv"
  "${PYTHON:-$(command -v python3.11 || command -v python3)}" -m venv "$place/venv" 9>&-
  "$python" -m pip install --quiet --disable-pip-version-check -r "$code/requirements.txt" 9>&-
  cp "$code/requirements.txt" "$place/venv/made-of"
fi

keep() {  # commit finished records, and nothing else
  local git_dir; git_dir=$(git rev-parse --git-dir)
  if [ -e "$git_dir/MERGE_HEAD" ] || [ -d "$git_dir/rebase-merge" ] || [ -d "$git_dir/rebase-apply" ]; then return 0; fi
  local new; new=$(git diff --name-only --diff-filter=A HEAD -- 'results/second/*.json'  # added when a commit failed
                   git ls-files --others --exclude-standard -- 'results/second/*.json')
  [ -n "$new" ] || return 0
  local runs failed; runs=$(grep -vc '\.failed\.json$' <<<"$new" || true) failed=$(grep -c '\.failed\.json$' <<<"$new" || true)
  local said="add $runs run$([ "$runs" = 1 ] || echo s) of the second trial"
  [ "$failed" = 0 ] || said="$said, and the note$([ "$failed" = 1 ] || echo s) of $failed that failed"
  for _ in 1 2 3; do  # somebody else may be committing just now
    if git add -- results/second/*.json 2>/dev/null 9>&- && git commit --quiet --no-verify 9>&- \
        -m "results: $said" -- results/second/*.json; then return 0; fi
    sleep 5
  done
  echo "warning: finished records could not be committed; the next half hour tries again" >&2
}

sweep=
finish() {
  trap - EXIT INT TERM
  if [ -n "$sweep" ]; then kill -TERM -- "-$sweep" 2>/dev/null || true; kill -CONT -- "-$sweep" 2>/dev/null || true; wait "$sweep" 2>/dev/null || true; fi
  rm -f "$place/pid"
  keep
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

keep  # what an earlier run left
store=$(pwd)/results python=$(realpath -s "$python")
# In a process group of its own, to pause or end it with its workers, which ends by itself when this script is gone. Where there is
# setsid it is a session of its own, with the lowest priority as a whole: Linux lets nice count only within a session.
own_session=$(command -v setsid || true)
compute() {
  cd "$code"
  exec $own_session bash -c '{ echo 19 > /proc/self/autogroup; } 2>/dev/null || true
    (while kill -0 "$0" 2>/dev/null; do sleep 2; done; kill -TERM 0) >/dev/null 2>&1 9>&- &
    exec nice -n 19 env "$@"' $$ PYTHONPATH="$code" OMP_NUM_THREADS=1 CMRSEG_DATA= "$python" -m cmrtrial.second_trial \
    --data "$data" --store "$store" --workers "${SECOND_TRIAL_WORKERS:-2}" "${hours[@]}"
}
[ -n "$own_session" ] || set -m
compute &
sweep=$!
set +m
echo "$sweep" > "$place/pid"
began=$SECONDS every=${SECOND_TRIAL_EVERY:-1800}  # seconds between commits
while kill -0 "$sweep" 2>/dev/null; do
  sleep "$((every < 5 ? every : 5))" 9>&- & wait $! || true
  if (( SECONDS - began >= every )); then keep; began=$SECONDS; fi
done
status=0; wait "$sweep" || status=$?
kill -TERM -- "-$sweep" 2>/dev/null || true  # what waited for the script's end
sweep=
exit "$status"
