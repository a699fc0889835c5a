#!/usr/bin/env python3
"""Does PEFT read an adapter that Feilun wrote, and compute the same?

    feilun score --json --numerics f32 --model MODEL --adapter ADAPTER TEXT > scores.json
    python peft_adapter.py MODEL ADAPTER scores.json

MODEL is a folder in the Hugging Face layout. Prints the largest difference of a token's
log-probability in nats, and how much the adapter changes; fails above 0.001.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

LIMIT = 1e-3


def logprobs(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def main():
    folder, adapter, scores = sys.argv[1:]
    with open(scores, encoding="utf-8") as file:
        scores = json.load(file)
    ids, ours = scores["token_ids"], scores["token_logprobs"]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = logprobs(base, ids)
    tuned = PeftModel.from_pretrained(base, adapter)
    after = logprobs(tuned, ids)
    found = torch.tensor(ours[len(ours) - len(after):], dtype=torch.float64)
    difference = (found - after).abs().max().item()
    change = (after - before).abs().max().item()
    print(f"{len(after)} tokens: PEFT differs by {difference:.2g} nats; "
          f"the adapter changes up to {change:.2g}")
    if difference > LIMIT or change < 10 * LIMIT:
        raise SystemExit("not the same")


if __name__ == "__main__":
    main()
