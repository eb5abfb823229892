"""EleutherAI's lm-evaluation-harness, which the tests install beside: its own Hugging Face model
and ours answer the same requests.

The pretrained model, SmolLM2-135M-Instruct, is in the folder that ``SMOLLM2`` names.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cat_jax.errors import InputError
from cat_jax.evaluation import harness_model
from cat_jax.models import load_language_model
from cat_jax.testing import toy_tokenizer
from experiments import lm_eval as command

pytestmark = pytest.mark.filterwarnings("default")  # those of the package are its own

ROOT = Path(__file__).resolve().parents[2]
torch.set_num_threads(1)  # which wait for each other where the machine is shared
MODELS = ["toy", "stories", "smollm2"]
TOLERANCE = 1e-4
LONG = "Tim saw a red ball in the park. It was big. " * 60

PAIRS = [
    ("Once upon a time", ", there was a little"),
    ("Once upon a time", " a"),
    ("Once upon a time", " b"),
    ("Once upon a time", " the"),
    ("Once upon a time,", " there was a"),
    ("Lily and Tom like to ", "play"),
    ("Lily and Tom like to   ", " play"),
    ("Lily\n", "went home."),
    ("", "The dog"),
    ("", " The dog was sad."),
    ("Straße und Café: ", "naïve 日本語 🙂"),
    ("日本", " 語"),
    ("x", " y"),
    (LONG, " Tim"),
    (LONG + LONG, " Tim was happy. He said: thank you!"),
    (LONG[:600], LONG[600:696]),  # as long as what the random model reads
]
TEXTS = ["", "a", "Once upon a time, there was a dog.", "日本語 🙂 naïve", LONG, LONG[:777]]
CONTEXTS = [
    "Once upon a time",
    "Lily and Tom",
    "x",
    LONG,
    "The dog was sad. 日本",
    "a b c ",
    "Tim\n",
]


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory):
    """The package; where it is missing, in an environment of its own above that of the tests."""
    if importlib.util.find_spec("lm_eval") is None:
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        ours = sysconfig.get_paths()["purelib"]
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        wanted = [
            requirement.partition(";")[0].strip()
            for requirement in metadata.requires("cat-jax")
            if re.search(r"extra == .lm-eval.$", requirement)
        ]
        pip("--python", folder / "bin/python", "install", "--quiet", *wanted)
        sys.path.append(str(packages))
        importlib.invalidate_caches()
        yield importlib.import_module("lm_eval")
        sys.path.remove(str(packages))
    else:
        yield importlib.import_module("lm_eval")


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    """The folder of a model: random with a character tokenizer, tiny and trained, pretrained."""
    if request.param == "stories":
        return request.getfixturevalue("shared") / "models/stories260K"
    if request.param == "smollm2":
        if "SMOLLM2" not in os.environ:
            pytest.skip("SMOLLM2 names no folder with SmolLM2-135M-Instruct")
        return Path(os.environ["SMOLLM2"])
    folder = tmp_path_factory.mktemp("toy")
    tokenizer = toy_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=96,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def both(lm_eval, folder):
    """The harness's own model and ours; of SmolLM2 a context that is quick to fill.

    Theirs computes in float64: over 511 tokens of SmolLM2 the sums of torch's float32 are off by
    0.003 to 0.004, ours by less than 1e-4.
    """
    from lm_eval.models.huggingface import HFLM

    # Ids without words, of a model whose vocabulary is larger, would be decoded to nothing.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    oracle = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    limit = min(512, oracle.config.max_position_embeddings)
    theirs = HFLM(oracle, tokenizer=tokenizer, batch_size=1, max_length=limit)
    return theirs, harness_model(load_language_model(folder), batch_size=3, max_length=limit)


def instances(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, n) for n, given in enumerate(arguments)]


every_model = pytest.mark.parametrize("folder", MODELS, indirect=True)


@every_model
def test_continuations_are_as_probable(both):
    requests = instances("loglikelihood", [*PAIRS, *greedy_pairs(both[0])])
    expected, given = (model.loglikelihood(requests, disable_tqdm=True) for model in both)
    np.testing.assert_allclose([x for x, _ in given], [x for x, _ in expected], atol=TOLERANCE)
    assert [greedy for _, greedy in given] == [greedy for _, greedy in expected]
    assert {greedy for _, greedy in given} == {True, False}


def greedy_pairs(model):
    """Continuations of one token that greedy decoding gives."""
    for context in ("Once upon a time", "Lily and Tom", "The dog"):
        ids = torch.tensor([model.tok_encode(context)])
        token = model.model(ids).logits[0, -1].argmax()
        yield context, model.tokenizer.decode(token)


@every_model
def test_texts_are_as_probable(both):
    requests = instances("loglikelihood_rolling", [(text,) for text in TEXTS])
    expected, given = (model.loglikelihood_rolling(requests, disable_tqdm=True) for model in both)
    np.testing.assert_allclose(given, expected, atol=TOLERANCE, rtol=1e-6)
    assert max(given[1:]) < 0


@every_model
def test_what_is_written_is_the_same(both):
    likely = both[0].generate_until(
        instances("generate_until", [(c, {"until": [], "max_gen_toks": 40}) for c in CONTEXTS]),
        disable_tqdm=True,
    )
    stops = [text[9:12] or "." for text in likely]  # several tokens, inside and across words
    settings = [
        {"until": [], "max_gen_toks": 40},
        {"until": stops[:2], "max_gen_toks": 40, "do_sample": False, "top_p": 0.9},
        {"until": stops[2], "max_gen_toks": 40, "temperature": 0.0},
        {"until": ["\n", "."], "max_gen_toks": 5},
        {"until": ["<turn_end>", stops[3]], "max_new_tokens": 40},
    ]
    requests = instances(
        "generate_until", [(context, given) for given in settings for context in CONTEXTS]
    )
    expected, given = (model.generate_until(requests, disable_tqdm=True) for model in both)
    assert given == expected
    assert given[: len(CONTEXTS)] == likely
    assert given[len(CONTEXTS) : 2 * len(CONTEXTS)] != likely
    assert len(set(map(len, given))) > 5


@every_model
@pytest.mark.parametrize("add", [True, False])
def test_special_tokens_are_added_alike(lm_eval, folder, add):
    from lm_eval.models.huggingface import HFLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    oracle = LlamaForCausalLM(LlamaConfig(vocab_size=3, hidden_size=4, num_attention_heads=1))
    theirs = HFLM(oracle, tokenizer=tokenizer, add_bos_token=add)
    ours = harness_model(load_language_model(folder), add_bos_token=add)
    assert ours.prefix_token_id == theirs.prefix_token_id
    assert ours.eot_token_id == theirs.eot_token_id
    assert ours.tokenizer_name == theirs.tokenizer_name
    prefix = tokenizer.decode(theirs.prefix_token_id)
    for text in ("a b", "", " a", prefix + "a", prefix):
        for special in (None, True, False):
            given = (model.tok_encode(text, add_special_tokens=special) for model in (ours, theirs))
            assert next(given) == next(given)
        if text.strip():
            assert ours._encode_pair(text, " c") == theirs._encode_pair(text, " c")
            ids, _ = theirs.tok_batch_encode([text])
            assert ours._encode_context(text) == ids[0].tolist()


@pytest.mark.parametrize("folder", ["toy", "smollm2"], indirect=True)
def test_messages_are_rendered_alike(both):
    theirs, ours = both
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    for messages, prompt in (
        (asked, True),
        ([*asked, {"role": "assistant", "content": "H"}], False),
    ):
        expected = theirs.apply_chat_template(messages, add_generation_prompt=prompt)
        assert ours.apply_chat_template(messages, add_generation_prompt=prompt) == expected
    assert ours.chat_template(True) == theirs.chat_template(True)


def test_a_template_without_a_system_role_drops_it(lm_eval, caplog, tmp_path):
    from cat_jax.testing import toy_model

    toy = toy_model()
    toy.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    ours = harness_model(toy)
    user = {"role": "user", "content": "Hi?"}
    assert ours.apply_chat_template([{"role": "system", "content": "x"}, user]) == "Hi?"
    assert "the system message is left out" in caplog.text
    toy.tokenizer.chat_template = None
    with pytest.raises(InputError, match="has no chat template"):
        ours.apply_chat_template([user])


QUESTIONS = [
    ("The sky on a clear day is", ["blue", "made of cheese", "seven"], 0),
    ("Two and two are", ["four", "a red dog"], 0),
    ("A cat says", ["woof and runs away", "meow"], 1),
    ("Tom's café is in", ["Zürich", "the 日本 sea", "a"], 0),
    ("Ice is", ["hot", "cold"], 1),
]
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/questions.jsonl}}
test_split: test
metadata: {version: 1.0}
"""
CHOICE = """
task: our_choice
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc, aggregation: mean}, {metric: acc_norm, aggregation: mean}]
"""
WRITE = """
task: our_write
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
READ = """
task: our_read
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[answer]}}. {{question}} {{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
TASKS = ["our_choice", "our_write", "our_read"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": q, "choices": choices, "answer": n} for q, choices, n in QUESTIONS]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, text in zip(TASKS, (CHOICE, WRITE, READ), strict=True):
        (folder / f"{name}.yaml").write_text(COMMON.replace("FOLDER", str(folder)) + text)
    return folder


def numbers(results):
    """The scores by task, metric and filter."""
    return {
        (task, name): value
        for task, scores in results["results"].items()
        for name, value in scores.items()
        if isinstance(value, float)
    }


@every_model
def test_tasks_are_scored_alike(lm_eval, both, tasks):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    chats = [False, True] if both[1].tokenizer.chat_template else [False]
    for chat in chats:
        expected, given = (
            lm_eval.simple_evaluate(
                model, tasks=TASKS, task_manager=manager, apply_chat_template=chat, num_fewshot=0
            )
            for model in both
        )
        found = numbers(given)
        assert len(found) >= 5
        assert found == pytest.approx(numbers(expected), rel=TOLERANCE, abs=TOLERANCE)
        answers = [
            [x["filtered_resps"] for x in results["samples"]["our_write"]]
            for results in (given, expected)
        ]
        assert answers[0] == answers[1]
    assert given["config"]["model_num_parameters"] == expected["config"]["model_num_parameters"]
    assert given["max_length"] == expected["max_length"]


@pytest.mark.parametrize("folder", ["toy"], indirect=True)
def test_the_command_prints_the_table_and_writes_the_results(
    lm_eval, folder, both, tasks, tmp_path, monkeypatch, capsys
):
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import make_table

    out = tmp_path / "out.json"
    words = [str(folder), "--tasks", "our_choice,our_read", "--include-path", str(tasks)]
    monkeypatch.setattr(sys, "argv", ["lm_eval", *words, "--out", str(out), "--limit", "4"])
    command.main()
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    expected = lm_eval.simple_evaluate(both[1], tasks=TASKS[::2], task_manager=manager, limit=4)
    written = json.loads(out.read_text())
    assert make_table(written) in capsys.readouterr().out
    assert numbers(written) == pytest.approx(numbers(expected))
    assert written["n-samples"]["our_choice"]["effective"] == 4
    assert "samples" not in written
    wrong = [*words[:2], "our_choise", *words[3:], "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["lm_eval", *wrong])
    with pytest.raises(InputError, match=r"named 'our_choise'; did you mean our_choice\?"):
        command.main()
    (tasks / "questions.jsonl").rename(tasks / "moved.jsonl")
    monkeypatch.setattr(sys, "argv", ["lm_eval", *words, "--out", str(out)])
    with pytest.raises(InputError, match="the data of the tasks cannot be read"):
        command.main()
    (tasks / "moved.jsonl").rename(tasks / "questions.jsonl")


@pytest.mark.parametrize("folder", ["toy"], indirect=True)
def test_samples_are_drawn_apart_and_again_from_the_seed(both, folder):
    given = {"do_sample": True, "temperature": 1.5, "top_k": 30, "max_gen_toks": 11, "until": []}
    requests = instances("generate_until", [("Tim", given)] * 5)
    first, again = (both[1].generate_until(requests, disable_tqdm=True) for _ in range(2))
    assert first == again
    assert len(set(first)) == 5
    other = harness_model(load_language_model(folder), seed=1)
    assert other.generate_until(requests, disable_tqdm=True) != first


@pytest.mark.parametrize("folder", ["toy"], indirect=True)
def test_answers_are_cached_as_the_harness_does(lm_eval, both, tasks, tmp_path):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    settings = {"tasks": TASKS, "task_manager": manager, "use_cache": str(tmp_path / "cache")}
    first = lm_eval.simple_evaluate(both[1], **settings)
    _, ours = both
    asked = []
    ours._loglikelihood_tokens = lambda *x, **y: asked.append(x)
    try:
        again = lm_eval.simple_evaluate(ours, **settings)
    finally:
        del ours._loglikelihood_tokens
    assert asked == []
    assert numbers(again) == numbers(first)


@pytest.mark.parametrize("folder", ["toy"], indirect=True)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 4}, r"no generation_kwargs \{'num_beams': 4\}"),
        ({"do_sample": True}, "do_sample needs a temperature above 0"),
        ({"max_gen_toks": 96}, "asks for 96 new tokens, but context and text together have at mo"),
    ],
)
def test_settings_of_decoding_that_cannot_be_are_refused(both, settings, message):
    with pytest.raises(InputError, match=message):
        both[1].generate_until(instances("generate_until", [("a", settings)]), disable_tqdm=True)


@pytest.mark.parametrize("folder", ["toy"], indirect=True)
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("a", ""), "has no token in its continuation"),
        (("  ", "b"), "has no token in its context"),
        (("a", "b" * 97), "a continuation has 97 tokens, but the model reads at most 96"),
    ],
)
def test_requests_that_cannot_be_scored_are_refused(both, pair, message):
    with pytest.raises(InputError, match=message):
        both[1].loglikelihood(instances("loglikelihood", [pair]), disable_tqdm=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length must be 1 to 2048"),
        ({"max_length": 2049}, "got 2049"),
        ({"batch_size": 0}, r"batch_size \(0\)"),
    ],
)
def test_settings_of_the_model_are_checked(lm_eval, settings, message):
    from cat_jax.testing import toy_model

    with pytest.raises(InputError, match=message):
        harness_model(toy_model(), **settings)


def test_the_example_of_the_page_runs(lm_eval, tasks):
    from lm_eval.tasks import TaskManager

    from cat_jax.testing import toy_model

    page = (ROOT / "docs/lm_eval.md").read_text()
    code, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace('"arc_easy"', '"our_choice"').replace("limit=200", "task_manager=manager")
    code = code.replace('cat.load_language_model("Qwen/Qwen2.5-1.5B")', "toy")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    names = {"toy": toy_model(), "manager": manager}
    exec(code, names)
    assert 0 <= names["results"]["results"]["our_choice"]["acc,none"] <= 1
