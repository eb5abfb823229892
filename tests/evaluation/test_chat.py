import pytest
from transformers import AutoTokenizer

from cat_jax.data.alignment import align_records
from cat_jax.data.conversations import Conversation, Message
from cat_jax.evaluation import chat_prompt

USER = {"role": "user", "content": "Hi 🦙"}


@pytest.fixture(scope="module")
def qwen(shared):
    return AutoTokenizer.from_pretrained(shared / "tokenizers/qwen2.5")


def test_prompt_follows_the_template(qwen):
    messages = [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    start, end = qwen.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    expected = []
    for message in messages:
        expected += [start, *qwen(f"{message['role']}\n{message['content']}").input_ids, end]
        expected += qwen("\n").input_ids
    expected += [start, *qwen("assistant\n").input_ids]
    assert chat_prompt(qwen, messages) == expected


@pytest.mark.parametrize("name", ["models/stories260K", "tokenizers/llama2"])
def test_a_tokenizer_without_template_is_refused(shared, name):
    tokenizer = AutoTokenizer.from_pretrained(shared / name)
    with pytest.raises(ValueError, match=f"{name}' has no chat template.*instruction-tuned"):
        chat_prompt(tokenizer, [USER])


@pytest.mark.parametrize("messages", [[], [USER, {"content": "Hi"}], [{"role": "user"}]])
def test_incomplete_messages_are_refused(qwen, messages):
    with pytest.raises(ValueError, match="each with a role and content"):
        chat_prompt(qwen, messages)


def test_messages_that_the_template_refuses_are_named(qwen, monkeypatch):
    template = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(qwen, "chat_template", template)
    with pytest.raises(ValueError, match="template refuses the messages: roles must alternate"):
        chat_prompt(qwen, [USER])


@pytest.mark.parametrize("header", ["assistant: ", "assistant:"])
def test_prompts_of_a_chat_have_the_ids_of_training(qwen, monkeypatch, header):
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + header + "' }}{% endif %}"
    )
    monkeypatch.setattr(qwen, "chat_template", template)
    said = (Message("user", "Hi"), Message("assistant", "Hello"))
    (found,), _ = align_records([Conversation(said)], qwen, max_length=99)
    prompt = chat_prompt(qwen, [{"role": "user", "content": "Hi"}])
    assert prompt == found.tokens[: found.target_mask.argmax()].tolist()
    assert qwen.decode(found.tokens[found.target_mask]) == " Hello<|im_end|>"
