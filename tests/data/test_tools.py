"""Tools, tool calls, reasoning and turns that are not trained, against transformers' rendering."""

import json

import numpy as np
import pytest

from cat_jax.data.alignment import align_records
from cat_jax.data.altered import AlteredConversation
from cat_jax.data.chat_template import render_conversation
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Annotation, Span
from cat_jax.data.sources import read_records, write_records
from cat_jax.errors import InputError
from cat_jax.evaluation import chat_prompt
from cat_jax.evaluation.answers import answer_range
from cat_jax.evaluation.testsets import make_test_set

# As Qwen3, with {% generation %} around what transformers' masks call the assistant's.
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools' }}{% for tool in tools %}"
    "{{ '\n' + tool | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}"
    "{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}"
    "{% endif %}{{ m.content }}{% for call in m.tool_calls %}"
    "{% if call.function %}{% set call = call.function %}{% endif %}"
    '{{ \'<tool_call>\n{"name": "\' + call.name + \'", "arguments": \' }}'
    "{{ call.arguments | tojson + '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen2.5: a line break comes with the words or calls, responses of tools share a turn.
GROUPED = (
    "{%- if tools %}{{- '<|im_start|>system\nYou are Qwen.\n\n# Tools\n\n<tools>' }}"
    "{%- for tool in tools %}{{- '\n' + tool | tojson }}{%- endfor %}"
    "{{- '\n</tools><|im_end|>\n' }}"
    "{%- elif messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}{%- if message.role == 'user' or "
    "(message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'assistant' %}{{- '<|im_start|>' + message.role }}"
    "{%- if message.content %}{{- '\n' + message.content }}{%- endif %}"
    "{%- for tool_call in message.tool_calls %}{%- if tool_call.function is defined %}"
    "{%- set tool_call = tool_call.function %}{%- endif %}"
    '{{- \'\n<tool_call>\n{"name": "\' + tool_call.name + \'", "arguments": \' }}'
    "{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- elif message.role == 'tool' %}{%- if loop.index0 == 0 or "
    "messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}"
    "{%- endif %}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def call(**arguments):
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}}


ASK = {"role": "user", "content": "Warm in Łódź?"}
CALL = {"role": "assistant", "content": "", "tool_calls": [call(place="Łódź", days=3)]}
SHOWN = {"role": "tool", "content": '{"degrees": 31.5}', "name": "weather", "tool_call_id": "1"}
SAY = {"role": "assistant", "content": "Warm: 31.5."}
TALK = {"messages": [ASK, CALL, SHOWN, SAY], "tools": [WEATHER]}


def aligned(fields, tokenizer):
    (record,) = read_records([fields])
    (example,), _ = align_records([record], tokenizer, max_length=9999)
    return example


def trained_texts(example, tokenizer):
    """What is trained, turn by turn."""
    borders = np.flatnonzero(np.diff(example.target_mask)) + 1
    parts = zip(
        np.split(example.tokens, borders), np.split(example.target_mask, borders), strict=True
    )
    return [tokenizer.decode(tokens) for tokens, mask in parts if mask[0]]


FLAT = {"messages": [ASK, CALL | {"tool_calls": [{"name": "weather", "arguments": {"a": 1}}]}]}
TWO = {
    "messages": [ASK, CALL | {"tool_calls": [call(place="a"), call(place="b")]}, SHOWN, SHOWN, SAY]
}
WORDY = {"messages": [ASK, CALL | {"content": "Let me see."}, SHOWN, SAY], "tools": [WEATHER]}
THOUGHTS = {"messages": [ASK, SAY | {"reasoning_content": "31 is a lot."}, ASK, SAY]}
BEFORE_CALL = {"messages": [ASK, CALL | {"reasoning_content": "I look."}], "tools": [WEATHER]}


@pytest.mark.parametrize("fields", [TALK, FLAT, TWO, WORDY, THOUGHTS, BEFORE_CALL])
def test_tokens_and_mask_are_those_of_transformers(qwen, fields):
    qwen.chat_template = TOOLS
    expected = qwen.apply_chat_template(
        fields["messages"],
        tools=fields.get("tools"),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    example = aligned(fields, qwen)
    assert example.tokens.tolist() == expected["input_ids"]
    assert example.target_mask.astype(int).tolist() == expected["assistant_masks"]


@pytest.mark.parametrize("fields", [TALK, FLAT, TWO, WORDY])
def test_calls_may_stand_on_a_line_of_their_own(qwen, fields):
    qwen.chat_template = GROUPED
    example = aligned(fields, qwen)
    assert example.tokens.tolist() == qwen.apply_chat_template(
        fields["messages"], tools=fields.get("tools"), return_dict=False
    )
    calls = fields["messages"][1]["tool_calls"]
    written = "".join(
        "\n<tool_call>\n" + json.dumps(c.get("function", c), ensure_ascii=False) + "\n</tool_call>"
        for c in calls
    )
    said = fields["messages"][1]["content"]
    first = f"{said}{written}<|im_end|>".removeprefix("\n")
    answers = [message["content"] for message in fields["messages"][2:] if message == SAY]
    assert trained_texts(example, qwen) == [first, *(f"{text}<|im_end|>" for text in answers)]


def test_prompts_have_the_ids_of_training(qwen):
    qwen.chat_template = GROUPED
    answer = aligned(TALK, qwen)
    call = {name: value for name, value in CALL.items() if name != "content"}
    prompt = chat_prompt(qwen, [ASK, call, SHOWN], tools=[WEATHER])
    assert prompt == answer.tokens[: answer_range(answer).start].tolist()


def test_a_file_gives_the_calls_of_its_dicts(read, tmp_path):
    (expected,) = read_records([TALK])
    assert expected.messages[1].tool_calls[0]["function"]["arguments"]["days"] == 3
    assert read(TALK) == [expected]  # numbers are numbers, not their spelling
    as_text = json.loads(json.dumps(TALK))
    function = as_text["messages"][1]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"])  # as servers return them
    as_text["messages"][1]["content"] = None
    as_text["tools"] = json.dumps(as_text["tools"])  # as data sets without nested columns have it
    assert read(as_text) == [expected]
    write_records(tmp_path / "again.jsonl", [expected])
    assert read_records(tmp_path / "again.jsonl") == [expected]
    filled = json.loads(json.dumps(TALK))  # as Arrow tables have it
    filled["messages"][1]["tool_calls"][0]["id"] = None
    filled["messages"][0] |= {"tool_calls": None, "weight": None}
    assert read_records([filled]) == [expected]


@pytest.mark.parametrize(
    ("fields", "without", "says"),
    [
        (TALK, "tools", "leaves out the tools"),
        (TALK, "m.tool_calls", "drops message 1"),
        (WORDY, "m.tool_calls", "leaves out the tool calls of message 1"),
        (WORDY, "call.arguments", "leaves out the tool calls of message 1"),
        (THOUGHTS, "m.reasoning_content", "leaves out the reasoning of message 1"),
    ],
)
def test_templates_that_leave_something_out_alter_the_conversation(qwen, fields, without, says):
    qwen.chat_template = TOOLS.replace(without, "''" if without == "call.arguments" else "none")
    if without == "m.tool_calls":
        qwen.chat_template = TOOLS.replace("in m.tool_calls", "in []")
    (record,) = read_records([fields])
    with pytest.raises(AlteredConversation, match=f"record 1: the chat template {says}"):
        render_conversation(record, qwen)
    plain = read_records([{"messages": [ASK, SAY]}])
    _, stats = align_records([record, *plain], qwen, max_length=9999)
    assert (stats.altered, stats.records) == (1, 1)


def test_a_template_without_tools_is_refused(qwen):
    with pytest.raises(AlteredConversation, match="drops message 1"):
        aligned(TALK, qwen)


def test_reasoning_of_turns_that_are_not_trained_may_be_dropped(qwen):
    qwen.chat_template = TOOLS.replace(
        "{% if m.reasoning_content %}", "{% if m.reasoning_content and loop.last %}"
    )
    earlier, last = THOUGHTS["messages"][1], SAY | {"reasoning_content": "So be it."}
    with pytest.raises(AlteredConversation, match="leaves out the reasoning of message 1"):
        aligned({"messages": [ASK, earlier, ASK, last]}, qwen)
    example = aligned({"messages": [ASK, earlier | {"train": False}, ASK, last]}, qwen)
    assert trained_texts(example, qwen) == ["<think>\nSo be it.\n</think>\n\nWarm: 31.5.<|im_end|>"]


@pytest.mark.parametrize("off", [{"train": False}, {"weight": 0}])
def test_turns_are_left_out_one_by_one(qwen, read, off):
    on = {"train": True} if "train" in off else {"weight": 1}
    for first, second in ((off, on), (on, off), ({}, off), (off, {})):
        fields = {"messages": [ASK, SAY | first, ASK, {**SAY, "content": "Yes."} | second]}
        (record,) = read(fields)
        (example,), _ = align_records([record], qwen, max_length=999)
        both = aligned({"messages": [ASK, SAY, ASK, {**SAY, "content": "Yes."}]}, qwen)
        assert example.tokens.tolist() == both.tokens.tolist()
        expected = "Yes." if first is off else "Warm: 31.5."
        assert trained_texts(example, qwen) == [f"{expected}<|im_end|>"]
        assert make_test_set("iid", [record], qwen).targets == [expected]


def test_the_answer_of_a_call_is_the_whole_turn(qwen):
    qwen.chat_template = GROUPED
    records = read_records([{"messages": [ASK, CALL], "tools": [WEATHER]}])
    (target,) = make_test_set("iid", records, qwen).targets
    assert target == (
        '<tool_call>\n{"name": "weather", "arguments": {"place": "Łódź", "days": 3}}\n</tool_call>'
    )


def test_effects_are_guided_beside_calls(qwen):
    qwen.chat_template = TOOLS
    note = (Annotation(Span("Warm"), (Span("31.5"),)),)
    plain = read_records([TALK])[0]
    noted = Conversation(
        (*plain.messages[:3], Message("assistant", "Warm: 31.5.", note)), tools=plain.tools
    )
    (example,), stats = align_records([noted], qwen, max_length=9999)
    assert (stats.spans_asked, stats.spans_found) == (2, 2)
    query = int(np.flatnonzero(example.causal_count)[0])
    assert qwen.decode(example.tokens[query + 1]) == "Warm"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (SAY | {"train": False}, "no message of the assistant is trained; leave out 'train' or"),
        (SAY | {"weight": 0}, "no message of the assistant is trained"),
        (SAY | {"weight": 0.5}, "message 1, field 'weight': must be 0 or 1, not '0.5'"),
        (SAY | {"weight": True}, "field 'weight': must be 0 or 1, not True"),
        (SAY | {"train": 1}, "field 'train': must be true or false, not '1'"),
        (SAY | {"train": True, "weight": 1}, "'train' and 'weight' say the same; remove one"),
        (ASK | {"weight": 1}, "field 'weight': only messages of the assistant are trained"),
        (SAY | {"content": [{"type": "image_url"}]}, "field 'content': a part has the type 'image"),
        (SAY | {"content": ["a"]}, "field 'content': a part must be an object"),
        (SAY | {"content": [{"type": "text"}]}, "field 'text': missing"),
        (SAY | {"content": []}, "field 'content': must be text or a number"),
        (SAY | {"content": ""}, "the assistant says nothing"),
        (CALL | {"role": "user"}, "field 'tool_calls': only messages of the assistant call tools"),
        (CALL | {"tool_calls": [1]}, "field 'tool_calls': must be a list of objects"),
        (CALL | {"tool_calls": "weather"}, "field 'tool_calls': must be a list of objects"),
        (CALL | {"tool_calls": [{"name": 3}]}, "'tool_calls': a function has no 'name'"),
        (CALL | {"tool_calls": []}, "field 'content': must be text"),
        (
            CALL | {"tool_calls": [call(a=float("nan"))]},
            "'tool_calls': holds what is no JSON value",
        ),
        (
            CALL | {"tool_calls": [{"name": "f", "arguments": "x"}]},
            "the arguments of a call must be an object",
        ),
        (
            SAY | {"train": False, "important": [{"Warm": ["31.5"]}]},
            "message 1 is not trained, so the query of its effect 'Warm' is not guided",
        ),
    ],
)
def test_bad_messages_are_refused(read, message, says):
    last = [SAY] if "important" in message else []
    if message.get("tool_calls") == []:
        says = "the assistant says nothing"
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2") as error:
        read({"messages": [ASK, SAY]}, {"messages": [ASK, message, *last]})
    assert says in str(error.value)


@pytest.mark.parametrize(
    "tools", [3, "weather", ["weather"], [{"type": "function"}], {"name": "a"}]
)
def test_bad_tools_are_refused(read, tools):
    with pytest.raises(InputError, match=r"line 1, field 'tools': "):
        read({"messages": [ASK, SAY], "tools": tools})


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "Warm"}, {"type": "text", "text": ": 31.5.", "image": None}]
    assert read_records([{"messages": [ASK, SAY | {"content": parts}]}]) == read_records(
        [{"messages": [ASK, SAY]}]
    )


def test_options_of_a_row_go_before_those_of_the_data_set():
    row = {"messages": [ASK, SAY], "chat_template_kwargs": {"a": 1}}
    (record,) = read_records([row], template_options={"a": 2, "b": 3})
    assert record.template_options == {"a": 1, "b": 3}


def test_calls_and_tools_made_in_python_are_checked():
    bare = Message("assistant", "", tool_calls=({"name": "now"},))
    assert bare.tool_calls == ({"name": "now", "arguments": {}},)
    with pytest.raises(InputError, match="a message of the assistant, field 'tool_calls': a func"):
        Message("assistant", "", tool_calls=({"arguments": {}},))
    with pytest.raises(InputError, match="a conversation, field 'tools': a function has no 'name'"):
        Conversation((Message("user", "a"), bare), tools=({},))
