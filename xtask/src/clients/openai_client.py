"""Every call that Feilun offers, made by OpenAI's own client.

Usage: openai_client.py BASE_URL MODEL

It talks to a running `feilun up` and fails with the first expectation that is not met. The model is
small and may say what it likes: what is checked is shape, agreement of both ways to ask, and what
constraints enforce.
"""

import asyncio
import json
import sys
import time
import urllib.request

import openai
from pydantic import BaseModel

base_url, model = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0, timeout=120)
asynchronous = openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0, timeout=120)
MESSAGES = [{"role": "user", "content": "Name three rivers in China."}]
GREEDY = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Basel", "Bern"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


class Person(BaseModel):
    name: str
    age: int


def models():
    listed = [entry.id for entry in client.models.list()]
    assert model in listed, listed
    assert client.models.retrieve(model).object == "model"


def chat():
    whole = client.chat.completions.create(**GREEDY, seed=1)
    text = whole.choices[0].message.content
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert text and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    with client.chat.completions.create(**GREEDY, seed=1, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == text, (streamed, text)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    # The same words again: what is cached is told, and nothing else changes.
    again = client.chat.completions.create(**GREEDY, seed=1)
    assert again.choices[0].message.content == text
    raw = client.chat.completions.with_raw_response.create(**GREEDY)
    assert raw.headers["x-feilun-turn-id"] == raw.parse().id


async def chat_asynchronously():
    whole = await asynchronous.chat.completions.create(**GREEDY)
    stream = await asynchronous.chat.completions.create(**GREEDY, stream=True)
    streamed = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert streamed == whole.choices[0].message.content
    many = await asyncio.gather(*(asynchronous.chat.completions.create(**GREEDY) for _ in range(8)))
    assert {m.choices[0].message.content for m in many} == {streamed}
    assert len({m.id for m in many}) == 8
    embedded = await asynchronous.embeddings.create(model=model, input="water")
    assert len(embedded.data[0].embedding) > 100


def chat_numbers():
    sampled = client.chat.completions.create(
        model=model, messages=MESSAGES, n=3, temperature=1.2, top_p=0.9, seed=5, max_completion_tokens=12,
        presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"100": -100}, user="someone", metadata={"a": "b"},
    )
    assert len(sampled.choices) == 3 and len({c.message.content for c in sampled.choices}) > 1
    again = client.chat.completions.create(
        model=model, messages=MESSAGES, n=3, temperature=1.2, top_p=0.9, seed=5, max_completion_tokens=12,
        presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"100": -100},
    )
    assert [c.message.content for c in again.choices] == [c.message.content for c in sampled.choices]
    scored = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=3)
    content = scored.choices[0].logprobs.content
    assert "".join(entry.token for entry in content) and all(entry.logprob <= 0 for entry in content)
    assert all(len(entry.top_logprobs) == 3 for entry in content)
    # At temperature 0 the likeliest token is taken.
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in content)
    text = bytes(b for entry in content for b in entry.bytes).decode("utf-8", "replace")
    assert text.strip() == scored.choices[0].message.content.strip(), (text, scored.choices[0].message.content)
    whole = client.chat.completions.create(**GREEDY).choices[0].message.content
    word = whole.split()[2]
    stopped = client.chat.completions.create(**GREEDY, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and word not in stopped.message.content


def formats():
    ask = {"model": model, "messages": [{"role": "user", "content": "Describe a person as JSON."}], "max_tokens": 200, "temperature": 0}
    any_object = client.chat.completions.create(**ask, response_format={"type": "json_object"}).choices[0]
    if any_object.finish_reason == "stop":
        assert isinstance(json.loads(any_object.message.content), dict)
    parsed = client.chat.completions.parse(**ask, response_format=Person).choices[0].message.parsed
    assert isinstance(parsed, Person)


def tools():
    ask = {"model": model, "messages": [{"role": "user", "content": "How is the weather in Basel?"}], "tools": [WEATHER], "max_tokens": 120, "temperature": 0}
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        for parallel in (True, False):
            answer = client.chat.completions.create(**ask, tool_choice=choice, parallel_tool_calls=parallel).choices[0]
            if answer.finish_reason == "length" and parallel:
                assert answer.message.tool_calls is None or answer.message.tool_calls
                continue
            assert answer.finish_reason == "tool_calls", answer
            for call in answer.message.tool_calls:
                arguments = json.loads(call.function.arguments)
                assert arguments["city"] in ("Basel", "Bern") and 1 <= arguments["days"] <= 7
    with client.chat.completions.create(**ask, tool_choice=named, parallel_tool_calls=False, stream=True) as stream:
        calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert len(calls) == 1 and json.loads(calls[0].function.arguments)["city"] in ("Basel", "Bern")
    free = client.chat.completions.create(**ask, tool_choice="auto").choices[0]
    assert free.message.content or free.message.tool_calls
    none = client.chat.completions.create(**ask, tool_choice="none").choices[0]
    assert none.message.tool_calls is None
    call = answer.message.tool_calls[0]
    went_on = client.chat.completions.create(
        model=model, max_tokens=16, tools=[WEATHER],
        messages=[*ask["messages"], answer.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain, 8 degrees"}],
    )
    assert went_on.choices[0].message.role == "assistant"


def completions():
    whole = client.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert "Paris" in whole.choices[0].text, whole.choices[0].text
    with client.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0, stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    batch = client.completions.create(model=model, prompt=["One, two,", "Rot, grün,"], max_tokens=4, n=2, temperature=0)
    assert [choice.index for choice in batch.choices] == [0, 1, 2, 3]
    scored = client.completions.create(model=model, prompt=[[504, 3575, 282], [504, 2913]], echo=True, logprobs=1, max_tokens=1, temperature=0)
    for choice, length in zip(scored.choices, (3, 2)):
        lists = choice.logprobs
        assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset) == length + 1
        assert lists.token_logprobs[0] is None
        assert all(max(top.values()) >= logprob for top, logprob in zip(lists.top_logprobs[1:], lists.token_logprobs[1:]))


def embeddings():
    embedded = client.embeddings.create(model=model, input=["a river", "a stream", "tax law"])
    vectors = [entry.embedding for entry in embedded.data]
    assert all(abs(sum(x * x for x in v) - 1) < 1e-3 for v in vectors)
    plain = client.embeddings.create(model=model, input="a river", encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(plain, vectors[0])) < 1e-6


def refusals():
    def refused(kind, call):
        try:
            call()
        except kind as error:
            return error
        raise AssertionError(f"nothing was refused where {kind} was expected")

    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(**{**GREEDY, "temperature": 9}))
    assert error.param == "temperature" and error.type == "invalid_request_error", error
    refused(openai.NotFoundError, lambda: client.chat.completions.create(**{**GREEDY, "model": "gpt-4"}))
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(**{**GREEDY, "max_tokens": 1_000_000}))
    assert error.code == "context_length_exceeded", error
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(**GREEDY, extra_body={"tempperature": 1}))
    assert error.code == "unknown_parameter" and "tempperature" in str(error), error


def feedback():
    turn = client.chat.completions.create(**GREEDY).id
    said = {"turn_id": turn, "kind": "rating", "value": True}
    request = urllib.request.Request(f"{base_url}/v1/feedback", json.dumps(said).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201 and json.load(answer)["id"]


def conversation(number):
    messages = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"It is {number}."}]
    return json.dumps({"messages": messages})


EXAMPLES = ("examples.jsonl", "\n".join(conversation(number) for number in range(24)).encode())


def files():
    made = client.files.create(file=EXAMPLES, purpose="fine-tune")
    assert made.object == "file" and made.bytes == len(EXAMPLES[1]) and made.filename == EXAMPLES[0], made
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == EXAMPLES[1]
    assert made.id in [file.id for file in client.files.list(purpose="fine-tune", limit=1)]
    assert client.files.delete(made.id).deleted
    try:
        client.files.create(file=("bad.jsonl", b"{}\n"), purpose="fine-tune")
    except openai.BadRequestError as error:
        assert "line 1" in str(error), error
    else:
        raise AssertionError("what holds no example was taken")


def fine_tuning():
    file = client.files.create(file=EXAMPLES, purpose="fine-tune")
    hyperparameters = {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": "auto"}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    job = client.fine_tuning.jobs.create(model=model, training_file=file.id, suffix="numbers", seed=1, method=method, metadata={"a": "b"})
    assert job.object == "fine_tuning.job" and job.status in ("queued", "running"), job
    deadline = time.monotonic() + 600
    while job.status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline, job
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded" and job.trained_tokens > 0, job
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    assert any(event.type == "metrics" and event.data["train_loss"] > 0 for event in events), events
    assert job.id in [other.id for other in client.fine_tuning.jobs.list(limit=1)]
    answer = client.chat.completions.create(**{**GREEDY, "model": job.fine_tuned_model})
    assert answer.model == job.fine_tuned_model and answer.choices[0].message.content
    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model


async def fine_tune_asynchronously():
    file = await asynchronous.files.create(file=EXAMPLES, purpose="fine-tune")
    assert (await asynchronous.files.retrieve(file.id)).id == file.id
    job = await asynchronous.fine_tuning.jobs.create(model=model, training_file=file.id, hyperparameters={"n_epochs": 50})
    cancelled = await asynchronous.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled", cancelled
    assert (await asynchronous.fine_tuning.jobs.retrieve(job.id)).status == "cancelled"
    assert [event async for event in asynchronous.fine_tuning.jobs.list_events(job.id)]
    assert (await asynchronous.files.delete(file.id)).deleted


for check in (models, chat, chat_numbers, formats, tools, completions, embeddings, refusals, feedback, files, fine_tuning):
    check()
    print(f"{check.__name__}: ok", flush=True)
asyncio.run(chat_asynchronously())
print("chat_asynchronously: ok")
asyncio.run(fine_tune_asynchronously())
print("fine_tune_asynchronously: ok")
