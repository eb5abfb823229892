"""Chat templates write the same text on every day, and take options."""

from datetime import date, datetime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from cat_jax.data.alignment import align_records
from cat_jax.data.chat_template import apply_template
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.sources import read_records
from cat_jax.data.template_options import check_template_options
from cat_jax.errors import InputError
from cat_jax.evaluation import chat_prompt

TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CLOCK = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + TURNS
LLAMA = (  # as Llama 3.2: the date may be given, else the clock is asked, else it is fixed
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
    "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{{ 'Today: ' + date_string + '\n' }}" + TURNS
)
SWITCH = "{{ 'off' if enable_thinking is defined and enable_thinking is false else 'on' }}" + TURNS
ASK = {"role": "user", "content": "Hi"}
ROW = {"messages": [ASK, {"role": "assistant", "content": "Hello"}]}


def on(day, monkeypatch):
    """Let transformers' own clock show a day."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(day)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    chat_template_utils._compile_jinja_template.cache_clear()


def written(tokenizer, **options):
    """The training tokens of the row as text."""
    (example,), _ = align_records(
        read_records([ROW], template_options=options), tokenizer, max_length=99
    )
    return tokenizer.decode(example.tokens)


@pytest.mark.parametrize("template", [CLOCK, LLAMA])
def test_the_tokens_are_the_same_on_every_day(qwen, monkeypatch, template):
    qwen.chat_template = template
    texts = set()
    for day in ("2026-01-31", "2031-12-01"):
        on(day, monkeypatch)
        shown = qwen.apply_chat_template([ASK], tokenize=False)
        assert date.fromisoformat(day).strftime("%d %b %Y") in shown  # transformers follows it
        texts.add(written(qwen))
    (text,) = texts
    assert text.startswith("Today: 26 Jul 2024\n<|im_start|>user\nHi")


@pytest.mark.parametrize("template", [CLOCK, LLAMA])
def test_another_date_gives_other_tokens(qwen, template):
    qwen.chat_template = template
    assert written(qwen, date="2026-02-03").startswith("Today: 03 Feb 2026\n")
    if template is LLAMA:  # a variable of the template itself
        assert written(qwen, date_string="1 May").startswith("Today: 1 May\n")


@pytest.mark.parametrize(
    ("template", "options"),
    [(CLOCK, {}), (CLOCK, {"date": "2026-02-03"}), (SWITCH, {"enable_thinking": False})],
)
def test_prompts_have_the_ids_of_training(qwen, template, options):
    qwen.chat_template = template
    records = read_records([ROW], template_options=options)
    (example,), _ = align_records(records, qwen, max_length=99)
    prompt = chat_prompt(qwen, [ASK], options)
    assert prompt == example.tokens[: example.target_mask.argmax()].tolist()
    assert qwen.decode(example.tokens[example.target_mask]) == "Hello<|im_end|>"


def test_options_reach_the_template(qwen):
    qwen.chat_template = SWITCH
    assert written(qwen).startswith("on<")
    assert written(qwen, enable_thinking=False).startswith("off<")
    assert apply_template(qwen, [ASK], {"enable_thinking": False}) == qwen.apply_chat_template(
        [ASK], tokenize=False, enable_thinking=False
    )


def test_options_are_part_of_a_conversation():
    plain, other = read_records([ROW, ROW])
    (dated,) = read_records([ROW], template_options={"date": "2026-02-03"})
    assert plain == other
    assert plain != dated
    assert hash(plain) == hash(dated)
    own = Conversation(plain.messages, template_options={"date": "2026-02-04", "a": 1})
    (kept,) = read_records([own], template_options={"date": "2026-02-03", "b": 2})
    assert kept.template_options == {"date": "2026-02-04", "a": 1, "b": 2}


@pytest.mark.parametrize(
    "value", ["", "today", "2026-1-31", "20260131", "2026-02-30", "31.01.2026", 2026, None, True]
)
def test_dates_of_another_form_are_refused(value):
    with pytest.raises(InputError, match=r"'date' is .*; write a date as YYYY-MM-DD"):
        Conversation(
            (Message("user", "a"), Message("assistant", "b")), template_options={"date": value}
        )


PIECES = ["%d", "%B", "%-d", "%Y", "%j", "%H:%M:%S", "%%", "d", "%A", " ", "é", "%y", "%I %p", "%n"]


@settings(deadline=None)
@given(day=st.dates(date(1000, 1, 1)), form=st.lists(st.sampled_from(PIECES)).map("".join))
def test_the_clock_formats_as_python_does(tokenizer, day, form):
    template = (
        "{% macro inner() %}{{ '[' + strftime_now(form) + ']' }}{% endmacro %}\n{{ inner() }}"
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tokenizer, "chat_template", template.replace("form", repr(form)))
        text = apply_template(tokenizer, [ASK], {"date": day.isoformat()})
    assert text == "[" + datetime.combine(day, time()).strftime(form) + "]"


def test_the_clock_changes_no_other_character(qwen, monkeypatch):
    on("2026-02-03", monkeypatch)
    for start in ("", "\n", "\n\n ", "  {% if true %}\n{% endif %}"):
        qwen.chat_template = start + CLOCK
        expected = qwen.apply_chat_template([ASK], tokenize=False)
        assert apply_template(qwen, [ASK], {"date": "2026-02-03"}) == expected


@pytest.mark.parametrize(
    "name",
    ["tokenize", "chat_template", "padding", "add_generation_prompt", "tools", "strftime_now"],
)
def test_arguments_of_transformers_are_no_options(qwen, name):
    with pytest.raises(InputError, match=f"record 1: the template option '{name}' is an argument"):
        written(qwen, **{name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "1", "a-b"])
def test_names_that_no_variable_has_are_refused(name):
    with pytest.raises(InputError, match="is no variable of a chat template"):
        check_template_options({name: 1})


def test_options_without_a_conversation_are_refused():
    with pytest.raises(InputError, match="the source holds no conversation, so no chat template"):
        read_records([{"text": "a"}], template_options={"date": "2026-02-03"})
