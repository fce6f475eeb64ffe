#!/usr/bin/env bash
# Several methods and seeds, each trained and then probed; a table at the end. Stop it whenever you like and start it again:
# what is finished is not done twice, what was interrupted goes on.
#   METHODS="simsiam byol" SEEDS="0 1 2" LABELS=10/class scripts/sweep_methods.sh dataset=cifar10 train.epochs=100
set -uo pipefail
: "${METHODS:=simsiam byol vicreg simclr moco_v2}" "${SEEDS:=0 1 2}" "${LABELS:=10/class}"

probed() { # with these labels, and after its training ended
  local result
  for result in "$1"/eval/probe*.json; do
    grep -qsF "\"labels\": \"$LABELS\"" "$result" && [ "$result" -nt "$1/encoder.safetensors" ] && return
  done
  return 1
}

trained=() failed=0
for seed in $SEEDS; do
  for method in $METHODS; do
    run=$(sslcli pretrain method="$method" seed="$seed" resume=auto "$@")
    code=$?
    case $code in
      0) trained+=("$method $run") ;;
      75 | 130) exit $code ;;       # asked to stop
      *) failed=$code && continue ;; # why was told on stderr; the others go on
    esac
    probed "$run" || sslcli eval probe run="$run" labels="$LABELS" --json >/dev/null || exit
  done
done

sslcli runs --json | python3 -c '
import json, os, statistics, sys

labels, *lines = sys.argv[1:]
runs = {os.path.realpath(r["run"]): r for r in json.load(sys.stdin)["runs"]}
table = {}
for line in lines:
    method, run = line.split(" ", 1)
    found = runs[os.path.realpath(run)]
    name = next(r["name"] for r in found["results"] if (r["evaluator"], r["labels"], r["dataset"]) == ("probe", labels, None))
    table.setdefault(method, []).append([found["numbers"][f"{name}.{key}"] for key in ("top1", "untrained.top1")])
print("method        seeds   probe.top1      untrained")
for method, rows in table.items():
    ours, before = zip(*rows)
    spread = f" ± {statistics.stdev(ours):.3f}" if len(rows) > 1 else ""
    print(f"{method:12} {len(rows):6}   {statistics.mean(ours):.3f}{spread:10} {statistics.mean(before):.3f}")
' "$LABELS" "${trained[@]}" || exit
exit "$failed"
