#!/usr/bin/env bash
# A small model from nothing but texts: see README.md. Usage: run.sh FOLDER [HOURS] [NAME]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd)
hours=${2:-1}
name=${3:-docs}
feilun=${FEILUN:-feilun}
tokenizer=${TOKENIZER:-smollm2-135m-instruct}
export FEILUN_DATA_DIR=${FEILUN_DATA_DIR:-$work/data}

[ -d "$work/texts" ] || python3 "$here/prepare.py" --out "$work/texts"
[ -e "$tokenizer" ] || "$feilun" models show "$tokenizer" > /dev/null 2>&1 || "$feilun" pull "$tokenizer"

"$feilun" pretrain --data "$work/texts" --hours "$hours" --tokenizer "$tokenizer" --out "$name" \
    --json | tee "$work/$name.json"
"$feilun" runs show "$name" --svg "$work/$name.svg"
# Bits per byte of the held-out text, against hours of training.
python3 "$here/curve.py" "$FEILUN_DATA_DIR/runs/$name/metrics.jsonl"
"$feilun" complete --model "$FEILUN_DATA_DIR/runs/$name/model" --temperature 0.8 --top-p 0.95 \
    --seed 1 --max-tokens 120 --prompt 'This function returns'
