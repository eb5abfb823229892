import pytest

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

ASK = {"role": "user", "content": "Smoking: 8?"}
SAY = {"role": "assistant", "content": "High"}


def chat(*messages, **more):
    return {"messages": list(messages)} | more


def test_fields_say_what_a_line_is(read):
    noted = {"important": [{"High": [{"text": "8", "start": 9, "message": 0}]}]}
    pinned = Annotation(Span("High"), (Span("8", 9, 0),))
    messages = Message("user", "Smoking: 8?"), Message("assistant", "High", (pinned,))
    (talk,) = read("", chat(ASK, SAY | noted))
    assert talk == Conversation(messages)
    assert talk.important == (pinned,)
    assert talk.where.endswith("rows.jsonl, line 2")
    assert read({"input": "a", "target": 8.0, "id": 3}) == [Record("a", "8.0")]
    assert read({"text": "all of it", "important": [{"it": ["all"]}]}) == [
        Record("", "all of it", (Annotation(Span("it"), (Span("all"),)),))
    ]


GOOD = {"input": "x 8 ", "target": "y"}


def noted(*causes, effect="High"):
    return SAY | {"important": [{"effect": effect, "causes": list(causes)}]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not valid JSON"),
        ({"a": 1, "b": None, "c": 2}, "no format known here; the fields are a, c; there are input"),
        ({}, "no format known here; the fields are none; there are input/target, text, messages"),
        (
            GOOD | {"text": "z"},
            "has fields of the formats input/target and text; keep those of one",
        ),
        ({"input": "a"}, "field 'target': missing"),
        ({"input": "a", "target": ""}, "field 'target': empty, so there is nothing to train"),
        ({"text": ""}, "field 'text': empty"),
        ({"text": ["a"]}, "field 'text': must be text or a number"),
        (GOOD | {"imporant": []}, "unknown field 'imporant'; did you mean 'important'?"),
        ('{"text": "a", "text": "b"}', "field 'text': occurs twice"),
        ('{"text": "a", "important": [{"a": ["b"], "a": []}]}', "field 'a': occurs twice"),
        (GOOD | {"important": [{"y": [{"text": "8", "message": 0}]}]}, "this is no conversation"),
        (chat(ASK, SAY, important=[]), "field 'important': annotations of a conv"),
        ({"messages": "hello"}, "field 'messages': must be a list of messages"),
        (chat(ASK), "the assistant says nothing"),
        (chat(), "the assistant says nothing"),
        (chat(ASK, SAY | {"content": ""}), "the assistant says nothing"),
        (chat(SAY, ASK, SAY), "message 0 is the assistant's and answers nothing; begin with"),
        (chat(SAY), "message 0 is the assistant's"),
        (chat(ASK, "High"), "message 1: expected an object with 'role' and 'content'"),
        (chat({"role": "user"}, SAY), "message 0, field 'content': missing"),
        (chat(ASK | {"content": None}, SAY), "message 0, field 'content': missing"),
        (chat(ASK, SAY | {"thought": ""}), "message 1, field 'thought': has no use here; remove"),
        (chat(ASK, SAY | {"important": "High"}), "message 1, field 'important': expected {effect"),
        (chat(ASK, noted({"text": "8", "start": 9})), "'8' do not stand at character 9 of the "),
        (chat(ASK, noted({"text": "8", "start": 3, "message": 0})), "content of message 0"),
        (chat(ASK, noted({"text": "8", "message": 2})), "names message 2, which is not before"),
        (chat(ASK, noted({"text": "8", "message": -1})), "a span must be text"),
        (
            chat(ASK, noted("Smoking", effect={"text": "High", "message": 1})),
            "the effect 'High' names a mess",
        ),
        (
            chat(ASK, noted("Smoking", effect={"text": "Low", "start": 0})),
            "'Low' do not stand at character 0",
        ),
    ],
)
def test_bad_lines_name_file_line_and_field(read, line, says):
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3") as error:
        read(GOOD, "", line)
    assert says in str(error.value)
    assert str(error.value).count("line 3") == 1
