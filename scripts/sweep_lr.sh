#!/usr/bin/env bash
# One method at several learning rates, as one sweep; each run is probed, the best stands first. Start it again after a stop:
# what is finished is not done twice.
#   RATES=0.1,0.2,0.4 scripts/sweep_lr.sh method=simclr dataset=cifar10 train.epochs=50
#   scripts/sweep_lr.sh hydra/launcher=joblib hydra.launcher.n_jobs=4 device.threads=1
set -uo pipefail
: "${RATES:=0.05,0.1,0.2,0.5,1}" "${LABELS:=10/class}"

runs=$(sslcli pretrain -m optimizer.lr="$RATES" resume=auto "$@")
code=$?
case $code in 75 | 130) exit $code ;; esac # asked to stop; jobs that failed were told on stderr, the others have a run

[ -n "$runs" ] || exit "$code"
sslcli eval probe -m run="$(paste -sd, <<<"$runs")" labels="$LABELS" -q >/dev/null || exit
table=$(while IFS= read -r run; do
  sslcli runs show "$run" --json | python3 -c '
import json, sys

run = json.load(sys.stdin)
name = next(r["name"] for r in run["results"] if (r["evaluator"], r["labels"], r["dataset"]) == ("probe", sys.argv[1], None))
print("{:.4f}   lr {:<8g} {}".format(run["numbers"][name + ".top1"], run["config"]["optimizer"]["lr"], run["run"]))' "$LABELS"
done <<<"$runs" | sort -r)
echo "$table"
best=$(awk 'NR == 1 { print $3 }' <<<"$table")
for edge in $(tr , '\n' <<<"$RATES" | sort -g | sed -n '1p;$p' | uniq); do
  [ "$(printf %g "$edge")" != "$best" ] || echo "the best rate, $best, is an edge of RATES=$RATES: a better one may lie beyond" >&2
done
exit "$code"
