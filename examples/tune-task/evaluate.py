#!/usr/bin/env python3
"""Asks a model every held-out question through `feilun chat`, and counts right answers.

    evaluate.py ask heldout.jsonl before.json --feilun feilun -- --model smollm2-135m-instruct
    evaluate.py compare heldout.jsonl before.json after.json

An answer is right if the first of the three labels in it is the right one; an answer without a
label is wrong. Intervals are 95 % bootstrap intervals over reviews and articles, not over their
sentences, which resemble each other.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

LABEL = re.compile("positive|negative|neutral")
RESAMPLES = 10_000


def questions(path):
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        example = json.loads(line)
        user, assistant = example["messages"]
        yield user["content"], assistant["content"], example["group"]


def ask(args):
    start, answers = time.monotonic(), []
    for question, _, _ in questions(args.heldout):
        command = [args.feilun, "chat", "--temperature", "0", "--max-tokens", "8", *args.more]
        # Behind `--`, a sentence that begins with a dash is no option.
        done = subprocess.run([*command, "--", question], check=True, capture_output=True)
        answers.append(done.stdout.decode(errors="replace").strip())
    seconds = time.monotonic() - start
    args.out.write_text(json.dumps({"seconds": seconds, "answers": answers}, indent=1))
    print(f"{len(answers)} answers in {seconds:.0f} s")


def label(answer):
    found = LABEL.search(answer.lower())
    return found.group() if found else None


def interval(values, groups, rng):
    """Mean and bootstrap interval, whole groups drawn."""
    members = {}
    for value, group in zip(values, groups):
        members.setdefault(group, []).append(value)
    members = [(sum(of), len(of)) for of in members.values()]
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(members, k=len(members))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]
    return sum(values) / len(values), low, high


def compare(args):
    _, wanted, groups = zip(*questions(args.heldout))
    rng = random.Random(0)
    rights = []
    most = max(set(wanted), key=wanted.count)
    print(f"always `{most}`: {wanted.count(most) / len(wanted):.1%}")
    for path in args.results:
        result = json.loads(path.read_text())
        found = [label(answer) for answer in result["answers"]]
        rights.append([int(a == b) for a, b in zip(found, wanted, strict=True)])
        mean, low, high = interval(rights[-1], groups, rng)
        print(f"{path.stem}: {mean:.1%} right ({low:.1%} to {high:.1%}), {found.count(None)} without"
              f" a label, {result['seconds']:.0f} s")
    for path, right in list(zip(args.results, rights))[1:]:
        gains = [after - before for after, before in zip(right, rights[0])]
        mean, low, high = interval(gains, groups, rng)
        print(f"{path.stem} over {args.results[0].stem}: {100 * mean:+.1f} points"
              f" ({100 * low:+.1f} to {100 * high:+.1f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("ask")
    command.add_argument("heldout", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--feilun", default="feilun")
    command.set_defaults(run=ask)
    command = commands.add_parser("compare")
    command.add_argument("heldout", type=Path)
    command.add_argument("results", type=Path, nargs="+")
    command.set_defaults(run=compare)
    # What stands behind -- is for `feilun chat`.
    ours = sys.argv[1:]
    at = ours.index("--") if "--" in ours else len(ours)
    args = parser.parse_args(ours[:at])
    args.more = ours[at + 1 :]
    args.run(args)


if __name__ == "__main__":
    main()
