"""Goldens of chat templates: templates of our own, rendered by transformers.

They use the constructs that the templates of published models use. Those themselves are other
people's text and stay out of the tree; `make.py templates-real` renders them on demand.
"""

import datetime
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import jinja2
from transformers.utils import chat_template_utils

import places
from template_cases import CASES, FAILING, PARTS, SIMPLE, THOUGHTS, TOOL_USE, TURNS, WEATHER

FOLDER = Path(__file__).parent / "templates"

#: What `strftime_now` answers.
NOW = datetime.datetime(2026, 11, 3, 9, 5, 7)

BOS, EOS = "<|bos|>", "<|eos|>"


class FixedClock(datetime.datetime):
    """The clock of the renderer, stopped."""

    @classmethod
    def now(cls, tz=None):
        return NOW


def make() -> None:
    """Write templates.json."""
    chat_template_utils.datetime = FixedClock
    items = []
    for name, conversations in CASES.items():
        template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
        for label, messages, tools, variables in conversations:
            items.append(render(f"{name}: {label}", template, messages, tools, variables))
            if "add_generation_prompt" in template:
                prompted = render(f"{name}: {label}, prompted", template, messages, tools, variables, True)
                items.append(prompted)
    items += [render(f"fails: {name}", template, SIMPLE) for name, template in FAILING.items()]
    items += smollm2_items()
    failed = [item["name"] for item in items if "error" in item]
    print("failing on purpose:", ", ".join(failed))
    head = places.made_by("templates", "transformers", "jinja2")
    places.write_lines(places.TEXT_GOLDENS / "templates.json", head, "items", items)


def render(name, template, messages, tools=None, variables={}, prompt=False, bos=BOS, eos=EOS) -> dict:
    """One golden: the inputs, and `rendered` or `error`."""
    item = {
        "name": name,
        "template": template,
        "messages": messages,
        "tools": tools,
        "variables": variables,
        "add_generation_prompt": prompt,
        "bos_token": bos,
        "eos_token": eos,
        "date": NOW.isoformat(),
    }
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=prompt,
            bos_token=bos, eos_token=eos, **variables,
        )
    except (jinja2.TemplateError, TypeError, ZeroDivisionError, ValueError, AttributeError) as error:
        return item | {"error": f"{type(error).__name__}: {error}"}
    return item | {"rendered": rendered[0]}


def smollm2_items() -> list[dict]:
    """The template inside SmolLM2's file; the test reads it from there, so `template` is null."""
    reader = gguf.GGUFReader(places.models_folder() / places.REAL_MODELS["smollm2"])
    template = reader.fields["tokenizer.chat_template"].contents()
    items = []
    for label, messages in [("simple", SIMPLE), ("turns", TURNS), ("turns without system", TURNS[1:])]:
        for prompt in [False, True]:
            name = f"smollm2: {label}" + (", prompted" if prompt else "")
            item = render(name, template, messages, None, {}, prompt, "<|im_start|>", "<|im_end|>")
            items.append(item | {"template": None, "template_of": "smollm2.gguf"})
    return items


#: What the templates of published models are rendered with.
REAL_CASES = [
    ("simple", SIMPLE, None),
    ("turns", TURNS, None),
    ("tools", SIMPLE, [WEATHER]),
    ("tool use", TOOL_USE, [WEATHER]),
    ("thoughts", THOUGHTS, None),
    ("parts", PARTS, None),
]


def make_real(folder: str, out: str) -> None:
    """Write goldens of every template in `folder` to `out`, in the same format."""
    chat_template_utils.datetime = FixedClock
    items = [
        render(f"{path.stem}: {label}", path.read_text(encoding="utf-8"), messages, tools, {}, prompt)
        for path in sorted(Path(folder).glob("*.jinja"))
        for label, messages, tools in REAL_CASES
        for prompt in [False, True]
    ]
    Path(out).write_text(json.dumps({"items": items}), encoding="utf-8")
    print(f"{out}: {len(items)} items, of which {sum('error' in item for item in items)} are errors")
