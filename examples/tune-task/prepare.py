#!/usr/bin/env python3
"""Makes train.jsonl and heldout.jsonl: sentences and the feeling that people found in them.

The sentences are those of Hutto and Gilbert (2014), each rated by twenty people from -4 to 4, as
the source distribution of the Python package vaderSentiment carries them (MIT licence). Nothing
is left to chance: the same package makes the same files.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SOURCES = ["tweets", "amazonReviewSnippets", "nytEditorialSnippets", "movieReviewSnippets"]
QUESTION = "Is the feeling of this text positive, negative or neutral? Answer with one word.\n\n"
# Means between these are called neutral: less than half a point on a scale of eight.
NEUTRAL = 0.5


def fetch(folder):
    """The package, by name and version; its bytes are checked before they are used."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", folder, PACKAGE]
    subprocess.run(command, check=True)
    (path,) = Path(folder).glob("*.tar.gz")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path.name}: sha256 is {found}, expected {SHA256}")
    return path


def member(archive, ending):
    for entry in archive.getmembers():
        if entry.isfile() and entry.name.endswith(ending):
            return archive.extractfile(entry).read()
    raise SystemExit(f"the package has no {ending}")


def text_of(raw):
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def items(package):
    with tarfile.open(package) as outer:
        inner = member(outer, "additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for source in SOURCES:
            for line in member(archive, f"{source}_GroundTruth.txt").splitlines():
                name, mean, text = text_of(line).split("\t", 2)
                mean = float(mean)
                label = "neutral" if abs(mean) < NEUTRAL else "positive" if mean > 0 else "negative"
                # Sentences of one review or article stay on one side.
                yield f"{source}/{name.split('_')[0]}", " ".join(text.split()), label


def place(key):
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=6000, help="examples to train on")
    parser.add_argument("--heldout", type=int, default=500, help="examples to measure on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(items(fetch(folder)))
    # The same sentence twice would be on both sides.
    unique = {text: (group, text, label) for group, text, label in found if text}
    ordered = sorted(unique.values(), key=lambda item: place(item[1]))
    heldout = [item for item in ordered if place(item[0]) < 0.1][: args.heldout]
    train = [item for item in ordered if place(item[0]) >= 0.1][: args.train]
    args.out.mkdir(parents=True, exist_ok=True)
    for name, chosen in [("train", train), ("heldout", heldout)]:
        with open(args.out / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for group, text, label in chosen:
                user = {"role": "user", "content": QUESTION + text}
                line = {"messages": [user, {"role": "assistant", "content": label}]}
                if name == "heldout":
                    line["group"] = group
                print(json.dumps(line, ensure_ascii=False), file=file)
        counts = {label: sum(item[2] == label for item in chosen) for label in
                  ["positive", "negative", "neutral"]}
        print(f"{name}: {len(chosen)} examples, {counts}")


if __name__ == "__main__":
    main()
