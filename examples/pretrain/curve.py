#!/usr/bin/env python3
"""Prints bits per byte on held-out text against hours, from a run's metrics.jsonl."""

import json
import sys


def main():
    hours = 0.0
    print("step\thours\tbits_per_byte")
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            hours += record.get("seconds", 0.0) / 3600
            if record["kind"] == "evaluation" and record.get("bits_per_byte"):
                print(f"{record['step']}\t{hours:.3f}\t{record['bits_per_byte']:.4f}")


if __name__ == "__main__":
    main()
