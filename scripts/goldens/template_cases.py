"""Conversations, tools and variables to render templates with."""

SIMPLE = [{"role": "user", "content": "Hello, world!"}]

TURNS = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "How tall is a door?"},
    {"role": "assistant", "content": "About two metres."},
    {"role": "user", "content": "And a window?"},
]

SPACED = [
    {"role": "system", "content": "  indented\n\n"},
    {"role": "user", "content": "\n  How  do \t tabs\tlook?\n  second line\n\nfourth line  \n"},
    {"role": "assistant", "content": " \n "},
    {"role": "user", "content": ""},
]

UNICODE = [
    {"role": "user", "content": "你好，世界！ 👨‍👩‍👧 Ñandú ΌΣΟΣ ß İ"},
    {"role": "assistant", "content": "<b>\"quotes\" & 'apostrophes'</b> {{ not.a.template }} {% nor this %}"},
]

ASSISTANT_FIRST = [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "No."}]

PARTS = [
    {"role": "user", "content": [
        {"type": "text", "text": "What is in "},
        {"type": "image", "url": "a.png"},
        {"type": "text", "text": "this picture?"},
    ]},
    {"role": "assistant", "content": "A heron."},
]

STRANGE_PART = [{"role": "user", "content": [{"type": "smell", "text": "?"}]}]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place, in °C; \"now\" & <soon>",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City, e.g. 北京"},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "integer", "default": 1, "minimum": 0},
            },
            "required": ["place"],
        },
    },
}

CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}

TOOL_USE = [
    {"role": "user", "content": "Weather in Oslo and Rome?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call00001", "type": "function", "function": {
            "name": "get_weather", "arguments": {"place": "Oslo", "days": 2, "deep": {"a": [1, 2.5, None, True]}},
        }},
        {"id": "call00002", "type": "function", "function": {
            "name": "get_weather", "arguments": {"place": "Rome"},
        }},
    ]},
    {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "-3 °C"},
    {"role": "tool", "tool_call_id": "call00002", "name": "get_weather", "content": "{\"celsius\": 14.0}"},
    {"role": "assistant", "content": "Oslo is cold, Rome is mild."},
    {"role": "user", "content": "Thanks!"},
]

BAD_CALL_ID = [
    {"role": "user", "content": "Go."},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "clock", "arguments": {}}},
    ]},
]

THOUGHTS = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n4"},
    {"role": "user", "content": "Time?"},
    {"role": "assistant", "content": "Let me look.", "reasoning_content": "\nA clock is needed.\n", "tool_calls": [
        {"type": "function", "function": {"name": "clock", "arguments": {}}},
        {"type": "function", "function": {"name": "clock", "arguments": "{\"zone\": \"UTC\"}"}},
    ]},
    {"role": "tool", "content": "12:00"},
    {"role": "tool", "content": "noon"},
    {"role": "assistant", "content": "<think>\nNoon it is.\n</think>\n\nIt is noon."},
]

#: Template -> the conversations that it is rendered with: (name, messages, tools, variables).
CASES = {
    "whitespace": [("simple", SIMPLE, None, {}), ("turns", TURNS, None, {}), ("spaced", SPACED, None, {})],
    "loops": [("turns", TURNS, None, {}), ("unicode", UNICODE, None, {}), ("assistant", ASSISTANT_FIRST, None, {})],
    "macros": [("turns", TURNS, None, {}), ("spaced", SPACED, None, {})],
    "strings": [("simple", SIMPLE, None, {}), ("spaced", SPACED[1:2], None, {}), ("unicode", UNICODE, None, {})],
    "lists": [("turns", TURNS, None, {}), ("simple", SIMPLE, None, {})],
    "python_text": [("simple", SIMPLE, None, {})],
    "json": [("tools", UNICODE, [WEATHER, CLOCK], {}), ("spaced", SPACED, None, {}), ("calls", TOOL_USE, None, {})],
    "parts": [("parts", PARTS, None, {}), ("plain", TURNS, None, {}), ("strange", STRANGE_PART, None, {})],
    "folded_system": [
        ("turns", TURNS, None, {}), ("simple", SIMPLE, None, {}), ("order", ASSISTANT_FIRST, None, {}),
    ],
    "dated": [("now", SIMPLE, None, {}), ("given", SIMPLE, None, {"date_string": "01 Feb 2003"})],
    "thinking": [
        ("plain", TURNS, None, {}),
        ("thoughts", THOUGHTS, None, {}),
        ("off", TURNS, None, {"enable_thinking": False}),
        ("on", TURNS, None, {"enable_thinking": True}),
    ],
    "toolbox": [
        ("none", TURNS, None, {}),
        ("tools", SIMPLE, [WEATHER, CLOCK], {}),
        ("use", TOOL_USE, [WEATHER], {}),
        ("bad id", BAD_CALL_ID, [CLOCK], {}),
    ],
    "generation": [("turns", TURNS, None, {})],
}

#: Small templates that must fail, with what is wrong about them.
FAILING = {
    "attribute of undefined": "{{ messages[0].nothing.more }}",
    "undefined function": "{{ no_such_function() }}",
    "undefined filter": "{{ messages | no_such_filter }}",
    "raise": "{{ raise_exception('said by the template: ' ~ messages[0].role) }}",
    "unclosed": "{% for message in messages %}{{ message.content }}",
    "string plus number": "{{ 'a' + 1 }}",
    "dunder": "{{ ''.__class__.__mro__ }}",
    "division by zero": "{{ 1 // 0 }}",
}
