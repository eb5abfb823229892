"""What is trained of a conversation, against transformers' own rendering and masks."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cat_jax.data.alignment import align_records
from cat_jax.data.bitset import decode
from cat_jax.data.chat_template import AlteredConversation, render_conversation
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.packing import pack_examples
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.testsets import make_test_set

# {% generation %} marks what transformers' return_assistant_tokens_mask calls the assistant's.
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (  # as Llama 2 and Mistral: contents trimmed, the system message in the first user's
    "{% for m in messages %}{% if m.role == 'system' %}{% elif m.role == 'user' %}"
    "{{ '[INST] ' }}{% if loop.index0 == 1 and messages[0].role == 'system' %}"
    "{{ '<<SYS>>' + messages[0].content + '<</SYS>> ' }}{% endif %}"
    "{{ m.content | trim + ' [/INST]' }}{% else %}{{ ' ' + m.content | trim + ' </s>' }}"
    "{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
THINK = (  # as Qwen3: thoughts stay in the last answer alone, which has some in any case
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% set content = m.content %}"
    "{% if m.role == 'assistant' %}{% set thought = '' %}{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def talk(*contents, roles=("user", "assistant")):
    roles = [roles[n % 2] for n in range(len(contents))]
    return Conversation(tuple(map(Message, roles, contents)))


def plain(conversation):
    return [{"role": m.role, "content": m.content} for m in conversation.messages]


def align(conversation, tokenizer):
    (example,), stats = align_records([conversation], tokenizer, max_length=9999)
    return example, stats


WORDS = st.text('aZ8 .\n\té😀"<|{}').map(str) | st.sampled_from(["<|im_end|>", " <|im_start|>x\n"])
TURNS = st.lists(st.tuples(WORDS, WORDS.filter(bool)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(system=st.none() | WORDS, turns=TURNS, question=st.none() | WORDS)
def test_tokens_and_mask_are_those_of_transformers(tokenizer, system, turns, question):
    messages = [] if system is None else [Message("system", system)]
    for asked, said in turns:
        messages += [Message("user", asked), Message("assistant", said)]
    messages += [] if question is None else [Message("user", question)]
    conversation = Conversation(tuple(messages))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tokenizer, "chat_template", MARKED)
        expected = tokenizer.apply_chat_template(
            plain(conversation), return_dict=True, return_assistant_tokens_mask=True
        )
        example, _ = align(conversation, tokenizer)
    assert example.tokens.tolist() == expected["input_ids"]
    assert example.target_mask.astype(int).tolist() == expected["assistant_masks"]


def test_a_real_template(qwen):
    system = Message("system", "Be brief.")
    conversation = Conversation((system, *talk("Hi 🦙", "Hello.", "Bye", " See\nyou ").messages))
    example, _ = align(conversation, qwen)
    assert example.tokens.tolist() == qwen.apply_chat_template(
        plain(conversation), return_dict=False
    )
    borders = np.flatnonzero(np.diff(example.target_mask)) + 1
    pieces = [qwen.decode(part) for part in np.split(example.tokens, borders)]
    assert pieces[1::2] == ["Hello.<|im_end|>", " See\nyou <|im_end|>"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (INST, [" Hello. </s>", " See\nyou </s>"]),
        (LLAMA3, ["Hello.<|eot_id|>", "See\nyou<|eot_id|>"]),
        (THINK, ["Hello.<|im_end|>", "<think>\n\n</think>\n\n See\nyou <|im_end|>"]),
    ],
)
def test_what_the_assistant_writes(qwen, template, expected):
    qwen.chat_template = template
    conversation = talk("Hi", "Hello.", "Bye", " See\nyou ")
    rendering = render_conversation(conversation, qwen)
    assert rendering.text == qwen.apply_chat_template(plain(conversation), tokenize=False)
    assert [rendering.text[t.start : t.stop] for t in rendering.targets] == expected
    contents = [m.content for m in conversation.messages]
    for start, content in zip(rendering.starts, contents, strict=True):
        inside = content.index(content.strip())
        assert rendering.text.startswith(content.strip(), start + inside)


def test_a_system_message_may_stand_inside_the_first_question(qwen):
    qwen.chat_template = INST
    conversation = Conversation((Message("system", "S"), *talk("Q", "A").messages))
    rendering = render_conversation(conversation, qwen)
    assert rendering.text == "[INST] <<SYS>>S<</SYS>> Q [/INST] A </s>"
    assert [rendering.text[start] for start in rendering.starts] == ["S", "Q", "A"]


def test_thoughts_of_the_last_answer_are_trained(qwen):
    qwen.chat_template = THINK
    rendering = render_conversation(talk("Q", "<think>\nhm\n</think>\n\nA"), qwen)
    (target,) = rendering.targets
    assert rendering.text[target.start :] == "<think>\nhm\n</think>\n\nA<|im_end|>\n"


EARLIER = ("Q", "<think>\nhm\n</think>\n\nA", "R", "B")
"""An earlier answer has thoughts, which THINK drops."""
UPPER = "{% for m in messages %}{{ m.content | upper + '#' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "altered", "kept"),
    [
        (THINK, talk(*EARLIER), talk("Q", "A", "R", "B")),
        (UPPER, talk("Q", "Yes"), talk("Q", "YES")),
    ],
)
def test_altered_conversations_are_left_out_and_counted(qwen, caplog, template, altered, kept):
    qwen.chat_template = template
    altered = Conversation(altered.messages, "f.jsonl, line 7")
    alone, _ = align_records([kept], qwen, max_length=99)
    examples, stats = align_records([altered, kept, altered], qwen, max_length=99)
    assert [example.tokens.tolist() for example in examples] == [alone[0].tokens.tolist()]
    assert (stats.altered, stats.records, stats.too_long) == (2, 1, 0)
    assert "altered by the chat template 2" in str(stats)
    (warning,) = caplog.messages
    assert warning.startswith(
        "2 of 3 records are left out, because the chat template alters them; the first: f.jsonl, "
        "line 7: the chat template changes what the assistant says in message 1"
    )


def test_records_without_a_name_are_numbered_among_all(qwen):
    qwen.chat_template = THINK
    missed = Record("Smoking: 8. ", "High", (Annotation(Span("High"), (Span("Smoking: 9"),)),))
    _, stats = align_records([talk(*EARLIER), missed], qwen, max_length=99)
    assert [unmatched.where for unmatched in stats.unmatched] == ["record 2"]


def test_unaltered_conversations_cause_no_warning(qwen, caplog):
    _, stats = align_records([talk("Q", "A")], qwen, max_length=99)
    assert stats.altered == 0
    assert "altered" not in str(stats)
    assert not caplog.messages


def test_a_data_set_that_the_template_alters_as_a_whole_is_refused(qwen):
    qwen.chat_template = THINK
    altered = [Conversation(talk(*EARLIER).messages, f"f.jsonl, line {n}") for n in (7, 8)]
    with pytest.raises(
        AlteredConversation, match=r"f\.jsonl, line 7: .*would train something else"
    ):
        align_records(altered, qwen, max_length=99)


def test_test_sets_are_refused_where_the_template_alters_some(qwen):
    qwen.chat_template = THINK
    records = [talk("Q", "A"), talk(*EARLIER)]
    with pytest.raises(InputError, match="test set 'ood': the chat template alters 1 of 2 conver"):
        make_test_set("ood", records, qwen)


def test_annotations_of_words_that_the_template_changes_are_refused(qwen):
    qwen.chat_template = (
        "{% for m in messages %}{{ (m.content if m.role == 'assistant' else m.content | upper) "
        "+ '#' }}{% endfor %}"
    )
    example, _ = align(talk("Hi", "B"), qwen)
    assert qwen.decode(example.tokens) == "HI#B#"
    noted = Message("assistant", "B", (Annotation(Span("B"), (Span("Hi"),)),))
    with pytest.raises(InputError, match="changes the words of message 0, so annotated"):
        align(Conversation((Message("user", "Hi"), noted)), qwen)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no system') }}", "refuses the messages: no system"),
        ("{{ 1 / 0 }}", "refuses the messages: division by zero"),
        ("{{ messages[0].content + 1 }}", "refuses the messages: can only concatenate str"),
        ("{{ messages[0].content.index('Z') }}", "refuses the messages: substring not found"),
        ("{% for %}", "refuses the messages: Expected an expression"),
        ("{{ messages[0].content }}", "drops message 1 \\(role 'assistant'\\)"),
        (
            "{% for m in messages %}{{ m.content + m.content + '#' }}{% endfor %}",
            "repeats message 0",
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "does not end the assistant's turn"),
        (UPPER, "changes what the assistant says in message 1"),
        (
            "{% for m in messages %}{{ m.content + '#' }}"
            "{% if loop.last and m.role == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}",
            "ends message 1 differently when",
        ),
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content + '#' }}{% endfor %}",
            "writes what stands before message 1 differently",
        ),
        (
            "{% for m in messages | reverse %}{{ m.content + '#' }}{% endfor %}",
            "rearranges what the messages say",
        ),
        (
            "{% for m in messages %}{{ m.content + '#' + m.content | length | string }}"
            "{% endfor %}",
            "rearranges what the messages say",
        ),
    ],
)
def test_templates_with_which_it_cannot_be_done(qwen, template, says):
    qwen.chat_template = template
    conversation = Conversation(talk("Hi", "hello", "Bye", "see you").messages, "f.jsonl, line 7")
    with pytest.raises(InputError, match=rf"f\.jsonl, line 7: .*{says}"):
        render_conversation(conversation, qwen)


def rows_and_causes(example, tokenizer):
    """The tokens predicted by annotated rows, and those that they attend to, as texts."""
    mask = decode(example.q_bits, example.k_bits)
    rows = np.flatnonzero(mask.any(-1))
    return [
        (tokenizer.decode(example.tokens[row + 1]), tokenizer.decode(example.tokens[mask[row]]))
        for row in rows
    ], mask


def test_annotations_stand_in_contents(qwen):
    first = Message("user", "Gene: 88, Smoking: 8 by a user")
    important = (
        Annotation(Span("High"), (Span("Smoking: 8"), Span("nowhere"), Span("ser", 27, 0))),
        Annotation(Span("so", 5), (Span("High", 0),)),
    )
    said = Message("assistant", "High so is so", important)
    example, stats = align(Conversation((first, said)), qwen)
    pairs, mask = rows_and_causes(example, qwen)
    assert pairs == [("High", " Smoking: 8 user"), (" so", "High")]
    assert (stats.spans_asked, stats.spans_found) == (6, 5)
    # " user" of the content, not the name of the role.
    text = render_conversation(Conversation((first, said)), qwen).text
    offsets = qwen(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    causes = [offsets[n] for n in np.flatnonzero(mask[mask.any(-1).argmax()])]
    assert text[causes[-1][0] : causes[-1][1]] == " user"
    assert causes[-1][1] == text.index(first.content) + len(first.content)


def test_causes_are_searched_in_what_was_said_before_alone(qwen):
    note = (Annotation(Span("A"), (Span("Q"),)),)
    conversation = Conversation(
        (
            Message("user", "Q one"),
            Message("assistant", "A", note),
            Message("user", "Q two"),
            Message("assistant", "A", note),
        )
    )
    example, stats = align(conversation, qwen)
    pairs, _ = rows_and_causes(example, qwen)
    assert pairs == [("A", "Q"), ("A", "QQ")]
    assert stats.spans_found == 4


def test_conversations_and_records_share_a_data_set_and_a_sequence(qwen):
    record = Record("Q: ", "High", (Annotation(Span("High"), (Span("Q"),)),))
    conversation = talk("Q", "A")
    together, stats = align_records([conversation, record, conversation], qwen, max_length=99)
    (alone,), _ = align_records([record], qwen, max_length=99)
    np.testing.assert_array_equal(together[1].tokens, alone.tokens)
    np.testing.assert_array_equal(together[1].q_bits, alone.q_bits)
    np.testing.assert_array_equal(together[0].tokens, together[2].tokens)
    assert (stats.records, stats.records_without_mask) == (3, 2)
    (packed,) = pack_examples(together, length=99, seed=0)
    assert packed.target_mask.sum() == sum(row.target_mask.sum() for row in together)


def test_reference_matching_knows_no_conversations(qwen):
    conversation = Conversation(talk("Q", "A").messages, "f.jsonl, line 7")
    with pytest.raises(
        InputError, match=r'f\.jsonl, line 7: match "reference" is not defined for conversations'
    ):
        align_records([conversation], qwen, max_length=99, match="reference")
