"""Feilun's `eval` beside lm-eval: the same items, the same weights in f32, log-likelihood by
log-likelihood; and how long both take.

    python3 -m venv venv && venv/bin/pip install -r scripts/goldens/requirements.txt lm-eval[hf]==0.4.13
    FEILUN_TEST_MODELS=FOLDER venv/bin/python scripts/goldens/lm_eval_parity.py FEILUN [smollm2|gemma3]

FEILUN is the program. Nothing is written into the tree; the last lines are the result.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import places
import reference_tokenizers

#: So short that most texts need several windows.
WINDOW = 128
TOLERANCE = 1e-3

FACTS = [
    ("The capital of France is", ["Paris", "Lyon", "a kind of cheese", "Rome"]),
    ("Water boils at a temperature of", ["100 degrees Celsius", "10 degrees", "1000 miles", "never"]),
    ("The opposite of hot is", ["cold", "warm", "hotter", "a hat"]),
    ("法国的首都是", ["巴黎", "伦敦", "北京", "一种奶酪"]),
    ("水的化学式是", ["H2O", "CO2", "NaCl", "O2"]),
    ("A triangle has three", ["sides", "wheels", "hundred and sixty degrees of freedom", "legs"]),
    ("def add(a, b):\n    return", ["a + b", "a - b", "print", "None"]),
    ("Émile naïvely ordered a crème", ["brûlée", "of wheat", "\u2014 no", "🍮"]),
]


def choices() -> list[dict]:
    """Questions of all kinds that the cutting of tokens could get wrong."""
    draw = random.Random(7)
    items = []
    for number in range(60):
        query, texts = draw.choice(FACTS)
        texts = draw.sample(texts, k=draw.choice([2, 3, 4]))
        if number % 3 == 0:
            a, b = draw.randrange(200), draw.randrange(200)
            query = f"{a} + {b} ="
            texts = [str(a + b), str(a + b + 1), str(a * b), "unknown"]
        shots = draw.choice([0, 0, 2, 5])
        before = [f"{q} {c[0]}" for q, c in (draw.choice(FACTS) for _ in range(shots))]
        # Spaces, tabs and line breaks at the end, which go with the continuation.
        end = draw.choice(["", "", "", " ", "  ", "\n", "\t \n"])
        prompt = "\n\n".join([*before, query]) + end
        if number == 5:
            prompt = ""
        items.append({"id": f"q{number}", "prompt": prompt, "choices": texts,
                      "answer": draw.randrange(len(texts))})
    return items


def long_choices() -> list[dict]:
    """What takes time: many examples before each question."""
    draw = random.Random(11)
    items = []
    for number in range(12):
        shots = [f"Question: {q}\nAnswer: {c[0]}" for q, c in draw.choices(FACTS, k=14)]
        query, texts = draw.choice(FACTS)
        prompt = "\n\n".join([*shots, f"Question: {query} (number {number})\nAnswer:"])
        items.append({"id": f"l{number}", "prompt": prompt, "choices": texts, "answer": 0})
    return items


def texts() -> list[dict]:
    sources = sorted((Path(__file__).parent / "texts").glob("*.txt"))
    found = [path.read_text(encoding="utf-8")[:1200] for path in sources]
    found += [(places.ROOT / name).read_text(encoding="utf-8")[:1200] for name in ("README.md", "README.zh.md")]
    found += ["x", "Short.", " leading and trailing ", "\n\n", "混合 mixed 文本 🙂"]
    return [{"id": f"t{number}", "text": text} for number, text in enumerate(found)]


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    control = {"smollm2": ("<|im_start|>", "<|im_end|>"), "gemma3": ("<bos>", "<eos>")}[name]
    return PreTrainedTokenizerFast(
        tokenizer_object=reference_tokenizers.load(name), bos_token=control[0],
        eos_token=control[1], pad_token=control[1], clean_up_tokenization_spaces=False,
    )


def task(name: str, path: Path, kind: dict, metrics: list[str]) -> dict:
    return {
        "task": name, "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}}, "test_split": "test",
        "metric_list": [{"metric": metric} for metric in metrics], **kind,
    }


CHOICE = {"output_type": "multiple_choice", "doc_to_text": "{{prompt}}",
          "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}"}
ROLLING = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}


def theirs(lm, config: dict):
    """(log-likelihoods by item, metrics, seconds)"""
    start = time.perf_counter()
    found = simple_evaluate(model=lm, tasks=[config], log_samples=True, bootstrap_iters=0,
                            verbosity="ERROR")
    seconds = time.perf_counter() - start
    name = config["task"]
    by_item = {}
    for sample in found["samples"][name]:
        responses = sample["filtered_resps"]
        by_item[sample["doc"]["id"]] = [
            r[0] if isinstance(r, (list, tuple)) else r for r in responses
        ]
    metrics = {key.split(",")[0]: value for key, value in found["results"][name].items()
               if isinstance(value, float) and "stderr" not in key}
    return by_item, metrics, seconds


def ours(program: str, model: Path, suite: Path, data: Path, numerics: str, window: int):
    start = time.perf_counter()
    command = [program, "eval", "--model", str(model), "--suite", str(suite), "--json",
               "--window", str(window), "--numerics", numerics, "--again"]
    environment = {**os.environ, "FEILUN_DATA_DIR": str(data)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    by_item = {}
    for line in (Path(found["path"]) / "items.jsonl").read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        answer = result["answer"]
        by_item[result["id"]] = answer.get("logprobs", [answer.get("logprob")])
    metrics = {figure["metric"]: figure["value"] for figure in found["metrics"]}
    return by_item, metrics, seconds


def compare(name: str, mine, reference) -> bool:
    (mine_items, mine_metrics, mine_seconds) = mine
    (their_items, their_metrics, their_seconds) = reference
    assert mine_items.keys() == their_items.keys(), "other items"
    pairs = [pair for key in mine_items for pair in zip(mine_items[key], their_items[key], strict=True)]
    for key in mine_items:
        for a, b in zip(mine_items[key], their_items[key], strict=True):
            if abs(a - b) > TOLERANCE * max(1.0, abs(b)):
                print(f"  {key}: {a:.6f} here, {b:.6f} lm-eval")
    worst = max(abs(a - b) for a, b in pairs)
    relative = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
    shared = {key: (mine_metrics[key], their_metrics[key]) for key in mine_metrics if key in their_metrics}
    print(f"{name}: {len(pairs)} log-likelihoods of {len(mine_items)} items, largest difference "
          f"{worst:.2e} (relative {relative:.2e})")
    for key, (a, b) in shared.items():
        print(f"  {key}: {a:.6f} here, {b:.6f} lm-eval")
    print(f"  seconds: {mine_seconds:.1f} here with loading, {their_seconds:.1f} lm-eval without")
    assert shared, "no metric in common"
    return relative <= TOLERANCE and all(abs(a - b) <= TOLERANCE for a, b in shared.values())


def main() -> None:
    program, names = sys.argv[1], sys.argv[2:] or ["smollm2"]
    is_good = True
    for name in names:
        file = places.models_folder() / places.REAL_MODELS[name]
        weights = AutoModelForCausalLM.from_pretrained(
            places.models_folder(), gguf_file=places.REAL_MODELS[name], dtype=torch.float32
        ).eval()
        hf = tokenizer(name)
        # Whole texts without a second BOS; questions as the model wants them.
        bos = {"smollm2": False, "gemma3": True}[name]
        lm = {b: HFLM(pretrained=weights, tokenizer=hf, batch_size=8, max_length=WINDOW,
                      add_bos_token=b) for b in {bos, False}}
        with tempfile.TemporaryDirectory() as folder:
            suites = {}
            for part, items in (("choices", choices()), ("texts", texts()), ("long", long_choices())):
                suites[part] = Path(folder) / f"{part}.jsonl"
                suites[part].write_text("".join(json.dumps(item) + "\n" for item in items))
            data = Path(folder) / "data"
            print(f"== {name}")
            for part, kind, metrics, beginning in (
                ("choices", CHOICE, ["acc", "acc_norm", "acc_bytes"], bos),
                ("texts", ROLLING, ["bits_per_byte", "byte_perplexity"], False),
            ):
                reference = theirs(lm[beginning], task(f"{part}_{name}", suites[part], kind, metrics))
                mine = ours(program, file, suites[part], data, "f32", WINDOW)
                is_good &= compare(part, mine, reference)
            wide = HFLM(pretrained=weights, tokenizer=hf, batch_size=8, max_length=1024,
                        add_bos_token=bos)
            reference = theirs(wide, task(f"long_{name}", suites["long"], CHOICE, ["acc", "acc_norm"]))
            mine = ours(program, file, suites["long"], data, "native", 1024)
            compare("long, for speed, native numerics", mine, reference)
            print(f"  ratio {reference[2] / mine[2]:.1f}")
    sys.exit(0 if is_good else 1)


main()
