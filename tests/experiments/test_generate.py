"""The command line that generates, with a real small model and with bad input."""

import json
import re
import shutil
from functools import partial

import pytest
from transformers import AutoTokenizer

from cat_jax.evaluation import Sampling, chat_prompt, complete, generate
from cat_jax.models import CausalLM, Int8Kernel, load_language_model, load_pretrained
from cat_jax.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def stories(shared):
    return shared / "models/stories260K"


@pytest.fixture
def run(run_command):
    return partial(run_command, "generate")


def test_continues_prompts_and_tells_the_speed(stories, shared, run):
    golden = json.loads((shared / "golden/stories260K_greedy.json").read_text())
    start = golden["text"][:60]
    status, printed, errors = run(stories, "--prompt", start, "Lily", "--max-new-tokens", 30)
    assert status == 0
    assert golden["text"].startswith(printed.splitlines()[0])
    assert len(printed.splitlines()[0]) > 90
    speed = re.fullmatch(
        r"(\d+) prompt tokens, (\d+) new tokens in ([\d.]+) s: ([\d.]+) new tokens/s\n",
        errors,
    )
    tokenizer = AutoTokenizer.from_pretrained(stories)
    assert int(speed[1]) == sum(len(tokenizer(text).input_ids) for text in (start, "Lily"))
    assert int(speed[2]) == 60


def test_samples_by_seed(stories, run):
    prompt, options = "Once upon a time", ("--max-new-tokens", 20, "--temperature", 1)
    filters = ("--top-k", 50, "--top-p", 0.9)
    texts = []
    for seed in (4, 4, 5):
        status, text, _ = run(stories, "--prompt", prompt, *options, *filters, "--seed", seed)
        assert status == 0
        texts.append(text)
    assert texts[0] == texts[1] != texts[2]
    config, params = load_pretrained(stories)
    tokenizer = AutoTokenizer.from_pretrained(stories)
    ids = tokenizer(prompt).input_ids
    sampling = Sampling(1.0, top_k=50, top_p=0.9)
    (new,) = generate(
        CausalLM(config), params, [ids], max_new_tokens=20, stop_ids=[2], sampling=sampling, seed=4
    )
    assert texts[0] == tokenizer.decode(ids + new, skip_special_tokens=True) + "\n"


@pytest.mark.parametrize("param_dtype", ["bfloat16", "int8", "stored"])
def test_weights_are_held_as_asked(stories, run, param_dtype):
    options = ("--max-new-tokens", 15, "--param-dtype", param_dtype)
    status, printed, _ = run(stories, "--prompt", "Once upon a time", *options)
    assert status == 0
    model = load_language_model(stories, param_dtype=param_dtype)
    expected = complete(model, ["Once upon a time"], max_new_tokens=15)
    assert printed == expected.texts[0] + "\n"
    held = model.params["layers"]["mlp"]["up"]["kernel"]
    assert isinstance(held, Int8Kernel) == (param_dtype == "int8")
    assert param_dtype != "bfloat16" or held.dtype == "bfloat16"


def test_a_chat_prints_the_answer_alone(stories, run, tmp_path):
    folder = shutil.copytree(stories, tmp_path / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}Once{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    words = ("--prompt", "A story!", "--chat", "--max-new-tokens", 12)
    status, printed, errors = run(folder, *words)
    assert status == 0
    config, params = load_pretrained(folder)
    prompt = chat_prompt(tokenizer, [{"role": "user", "content": "A story!"}])
    (new,) = generate(CausalLM(config), params, [prompt], max_new_tokens=12, stop_ids=[2])
    assert printed == tokenizer.decode(new, skip_special_tokens=True) + "\n"
    assert errors.startswith(f"{len(prompt)} prompt tokens, 12 new tokens")


@pytest.fixture
def broken(stories, tmp_path):
    """Copies of the model with something missing or strange."""
    for name in ("untokenized", "qwen_untokenized"):
        folder = shutil.copytree(stories, tmp_path / name)
        for file in folder.glob("tokenizer*"):
            file.unlink()
    config = json.loads((stories / "config.json").read_text())
    config |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (tmp_path / "qwen_untokenized/config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("stories", ["--prompt"], "--prompt names no text"),
        ("stories", [], "--prompt"),
        ("stories", ["--prompt", "hi", "--chat"], "has no chat template"),
        ("stories", ["--prompt", "hi", "--top-k", "3"], "change nothing at temperature 0"),
        ("stories", ["--prompt", "hi", "--temperature", "-1"], "temperature must be"),
        ("stories", ["--prompt", "hi", "--max-new-tokens", "0"], "max_new_tokens (0)"),
        ("stories", ["--prompt", "hi", "--temprature", "1"], "--temperature"),
        ("untokenized", ["--prompt", "hi"], "untokenized holds no tokenizer"),
        (".", ["--prompt", "hi"], "has no config.json"),
    ],
)
def test_bad_input_ends_with_a_sentence(stories, broken, run, name, arguments, message):
    status, _, error = run(stories if name == "stories" else broken / name, *arguments)
    assert status == 2
    error = " ".join(error.replace("│", " ").split())
    assert message in error
    assert "Traceback" not in error


def test_tokenizers_without_words_or_with_too_many_are_refused(shared, broken):
    with pytest.raises(ValueError, match="qwen_untokenized holds no tokenizer"):
        load_tokenizer(str(broken / "qwen_untokenized"), 512)
    qwen = shared / "tokenizers/qwen2.5"
    with pytest.raises(ValueError, match="has 151646 tokens, but the model knows 512"):
        load_tokenizer(str(qwen), 512)
    assert len(load_tokenizer(str(qwen), 151_936)) == 151_646
