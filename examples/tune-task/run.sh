#!/usr/bin/env bash
# A real task, before and after: see README.md. Usage: run.sh FOLDER [HELDOUT] [TRAIN]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd)
num_heldout=${2:-500}
num_train=${3:-6000}
feilun=${FEILUN:-feilun}
base=${BASE:-smollm2-135m-instruct}
export FEILUN_DATA_DIR=${FEILUN_DATA_DIR:-$work/data}

python3 "$here/prepare.py" --out "$work" --heldout "$num_heldout" --train "$num_train"
# A path is a model already; a name is fetched unless it is there.
[ -e "$base" ] || "$feilun" models show "$base" > /dev/null 2>&1 || "$feilun" pull "$base"

ask() { # NAME, then arguments for `feilun chat`
    local name=$1
    shift
    python3 "$here/evaluate.py" ask "$work/heldout.jsonl" "$work/$name.json" --feilun "$feilun" -- "$@"
}

tune() { # NAME, then arguments for `feilun tune`
    local name=$1
    shift
    "$feilun" tune --base "$base" --data "$work/train.jsonl" --out "$name" --context 256 \
        --epochs 1 --json "$@" | tee "$work/$name-run.json"
}

ask before --model "$base"
tune task-lora --method lora
ask lora --model "$base" --adapter "$FEILUN_DATA_DIR/runs/task-lora/adapter"
tune task-full --method full
ask full --model "$FEILUN_DATA_DIR/runs/task-full/model.gguf"
python3 "$here/evaluate.py" compare "$work/heldout.jsonl" "$work"/{before,lora,full}.json \
    | tee "$work/result.txt"
