"""Where goldens go, where the model files are, and how golden files are written."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNEL_GOLDENS = ROOT / "crates/feilun-kernels/tests/goldens"
MODEL_GOLDENS = ROOT / "crates/feilun-model/tests/goldens"
MODEL_FIXTURES = ROOT / "crates/feilun-model/tests/fixtures"
GRADIENTS = ROOT / "crates/feilun-model/tests/goldens/gradients"
TRAIN_GOLDENS = ROOT / "crates/feilun-train/tests/goldens"
EVAL_GOLDENS = ROOT / "crates/feilun-eval/tests/goldens"
TEXT_GOLDENS = ROOT / "crates/feilun-text/tests/goldens"

#: Golden name -> file name in the folder that FEILUN_TEST_MODELS names.
REAL_MODELS = {"smollm2": "smollm2.gguf", "gemma3": "gemma3.gguf"}


def models_folder() -> Path:
    """The folder with the real model files, which `cargo xtask test` fetches."""
    folder = os.environ.get("FEILUN_TEST_MODELS")
    if folder is None:
        sys.exit("set FEILUN_TEST_MODELS to the folder with smollm2.gguf and gemma3.gguf")
    for name in REAL_MODELS.values():
        if not (Path(folder) / name).is_file():
            sys.exit(f"FEILUN_TEST_MODELS has no {name}; `cargo xtask test` fetches it")
    return Path(folder)


def made_by(part: str, *packages: str) -> dict:
    """What every golden file says about itself: the command, and the references' versions."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"made_by": f"scripts/goldens/make.py {part}", "versions": versions}


def write_lines(path: Path, head: dict, key: str, items: list) -> None:
    """Write `{...head, key: [items]}` with one item a line, so that diffs can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("  " + compact(item) for item in items)
    fields = "".join(f"{compact(name)}: {compact(value)},\n" for name, value in head.items())
    path.write_text(f"{{{fields}{compact(key)}: [\n{lines}\n]}}\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(items)} items, {path.stat().st_size} bytes")


def compact(value) -> str:
    """JSON on one line, in plain ASCII: odd characters survive every editor."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
