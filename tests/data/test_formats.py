"""Formats of data sets: recognised by their fields, one for a data set."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.formats import FORMATS
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.data.sources import read_records
from cat_jax.errors import InputError
from cat_jax.tasks import files

NOTE = [{"High": ["Smoking: 8"]}]
NOTED = (Annotation(Span("High"), (Span("Smoking: 8"),)),)
ASK, SAY = Message("user", "Smoking: 8?"), Message("assistant", "High", NOTED)
ASK_FIELDS = {"role": "user", "content": "Smoking: 8?"}
SAY_FIELDS = {"role": "assistant", "content": "High", "important": NOTE}
ALPACA = """\
Below is an instruction that describes a task. Write a response that appropriately completes the \
request.

### Instruction:
Smoking: 8?

### Response:
"""
ALPACA_WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Risk?

### Input:
Smoking: {8}

### Response:
"""

ROWS = {
    "input/target": ({"input": "Smoking: 8?", "target": "High"}, "Smoking: 8?"),
    "text": ({"text": "Smoking: 8? High"}, ""),
    "prompt/completion": ({"prompt": "Smoking: 8?", "completion": "High"}, "Smoking: 8?"),
    "Alpaca": ({"instruction": "Smoking: 8?", "output": "High"}, ALPACA),
    "messages": ({"messages": [ASK_FIELDS, SAY_FIELDS]}, None),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "human", "value": "Smoking: 8?"},
                {"from": "gpt", "value": "High", "important": NOTE},
            ]
        },
        None,
    ),
}
"""A row of each format, and the prompt of those that are records."""


@pytest.mark.parametrize("name", ROWS)
def test_every_format_becomes_a_record_with_its_annotations(read, name):
    fields, prompt = ROWS[name]
    if prompt is None:
        expected = Conversation((ASK, SAY))
    else:
        fields = fields | {"important": NOTE}
        expected = Record(prompt, "Smoking: 8? High" if name == "text" else "High", NOTED)
    assert read_records([fields]) == [expected]
    assert read(fields, fields | {"id": 3, "source": "x"}) == [expected, expected]


def test_every_format_has_a_row():
    assert [format.name for format in FORMATS] == [
        "input/target",
        "text",
        "messages",
        "prompt/completion",
        "Alpaca",
        "ShareGPT",
    ]
    assert {format.name for format in FORMATS} == set(ROWS)


def test_alpaca_with_and_without_input():
    row = {"instruction": "Risk?", "input": "Smoking: {8}", "output": 3}
    assert read_records([row]) == [Record(ALPACA_WITH_INPUT, "3")]
    for empty in ("", None):
        row = {"instruction": "Smoking: 8?", "input": empty, "output": "High"}
        assert read_records([row]) == [Record(ALPACA, "High")]


def test_prompts_of_messages_are_context():
    shot = {"role": "assistant", "content": "Low"}
    row = {
        "prompt": [ASK_FIELDS, shot, ASK_FIELDS],
        "completion": [SAY_FIELDS, ASK_FIELDS, {"role": "assistant", "content": "B"}],
    }
    (conversation,) = read_records([row])
    assert [m.content for m in conversation.messages][:3] == ["Smoking: 8?", "Low", "Smoking: 8?"]
    assert [m.is_trained for m in conversation.messages] == [False] * 3 + [True, False, True]


def test_roles_of_sharegpt(read):
    said = [("human", "q"), ("gpt", "a"), ("tool", "t"), ("assistant", "b"), ("user", "r")]
    row = {"system": "s", "conversations": [{"from": n, "value": v} for n, v in said]}
    (conversation,) = read(row)
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "a"),
        ("tool", "t"),
        ("assistant", "b"),
        ("user", "r"),
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "target": "b"}, "of the formats input/target and prompt/completion; keep"),
        ({"messages": [], "conversations": []}, "of the formats messages and ShareGPT"),
        ({"instruction": "a", "input": "b", "target": "c"}, "formats input/target and Alpaca"),
        ({"instruction": "a", "input": "b", "output": "c", "text": "d"}, "text and Alpaca"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "field 'completion': missing; add it"),
        ({"instruction": "a", "input": "b"}, "field 'output': missing; add it"),
        ({"question": "a", "answer": "b"}, "no format known here; the fields are question, answer"),
        ({"prompt": "a", "completion": ""}, "field 'completion': empty, so there is nothing to tr"),
        ({"instruction": "a", "output": ""}, "field 'output': empty, so there is nothing to train"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "field 'history': has no"),
        ({"prompt": "a", "completion": [SAY_FIELDS]}, "field 'completion': is a list of messages,"),
        ({"prompt": [ASK_FIELDS], "completion": "a"}, "field 'prompt': is a list of messages, and"),
        ({"prompts": "a", "completion": "b"}, "unknown field 'prompts'; did you mean 'prompt'?"),
        (
            {"conversations": [{"from": "function_call", "value": "f"}]},
            "message 0, field 'from': 'function_call' is no role here; there are human, user, gpt",
        ),
        ({"conversations": [ASK_FIELDS]}, "message 0, field 'content': has no use here"),
        ({"conversations": "a"}, "field 'conversations': must be a list of messages"),
        ({"conversations": [{"from": "human"}]}, "message 0, field 'value': missing"),
    ],
)
def test_rows_of_no_format_are_refused_by_name(read, row, says):
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3") as error:
        read(ROWS["Alpaca"][0], ROWS["Alpaca"][0], row)
    assert says in str(error.value)


@given(names=st.permutations(list(ROWS)))
def test_a_data_set_of_two_formats_is_refused_by_both_lines(names):
    one, two = (ROWS[name][0] for name in names[:2])
    with pytest.raises(InputError) as error:
        read_records([one, one, two])
    assert str(error.value).startswith(
        f"record 3: has the format {names[1]}, but record 1 has {names[0]}; "
    )


def test_objects_of_two_kinds_may_be_mixed_with_one_format():
    record, talk = Record("a", "b"), Conversation((ASK, SAY))
    rows = [record, ROWS["Alpaca"][0], talk]
    assert read_records(rows) == [record, Record(ALPACA, "High"), talk]


def test_the_page_names_every_format_and_the_prompt_of_alpaca():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    section = page.partition("## Formats\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    prompt = block.format(instruction="Risk?", input="Smoking: {8}")
    assert prompt == ALPACA_WITH_INPUT
    assert set(re.findall(r"^\| ([A-Za-z/]+) \| `", section, re.MULTILINE)) == set(ROWS)


GSM = [{"question": "2 + 2?", "answer": "4", "text": "x"}, {"question": "1?", "answer": "1"}]


def test_columns_name_the_fields(read):
    columns = {"input": "question", "target": "answer"}
    assert read_records(GSM, columns=columns) == [Record("2 + 2?", "4"), Record("1?", "1")]
    assert read_records(GSM, columns={"instruction": "question", "output": "answer"})[1].target == (
        "1"
    )
    noted = [{"input": "old", "q": "Smoking: 8?", "target": "High", "causes": NOTE}, GOOD]
    assert read_records(noted, columns={"input": "q", "important": "causes"}) == [
        Record("Smoking: 8?", "High", NOTED),
        Record("c", "d"),
    ]


GOOD = {"q": "c", "target": "d"}


def test_columns_choose_among_formats():
    row = {"instruction": "a", "input": "b", "output": "c", "text": "d"}
    assert read_records([row], columns={"text": "text"}) == [Record("", "d")]
    own = {"instruction": "instruction", "output": "output"}
    (record,) = read_records([row], columns=own)
    assert "### Input:\nb\n" in record.input
    talk = {"conversations": [ASK_FIELDS, SAY_FIELDS]}
    assert read_records([talk], columns={"messages": "conversations"}) == [Conversation((ASK, SAY))]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"input": "question", "target": "solution"}, "record 1: there is no column 'solution' "),
        ({"input": "frage", "target": "answer"}, "'frage' for the field 'input' up to here; the c"),
        (
            {"input": "question", "target": "answer", "important": "causes"},
            "record 2: there is no column 'causes' for the field 'important' up to here; the "
            "columns are question, answer, text",
        ),
        ({"inptu": "question"}, "there is no field 'inptu'; did you mean input?"),
        ({"x": "question"}, "there is no field 'x'; there are chat_template_kwargs, completion"),
    ],
)
def test_columns_that_are_not_there_are_refused(columns, says):
    with pytest.raises(InputError) as error:
        read_records(GSM, columns=columns)
    assert says in str(error.value)


def test_files_take_columns(tmp_path):
    for name in ("train", "other"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, GSM)))
    task = files(
        train=str(tmp_path / "train.jsonl"),
        test_files=(str(tmp_path / "other.jsonl"),),
        columns={"input": "question", "target": "answer"},
    )
    assert (
        task.records("train")
        == task.records("other")
        == [
            Record("2 + 2?", "4"),
            Record("1?", "1"),
        ]
    )
