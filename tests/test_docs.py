"""What the pages in docs/ show runs as it stands there."""

import json
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer

import cat_jax as cat
from cat_jax.annotation import Answer
from cat_jax.compare.methods import METHODS
from cat_jax.data.records import Record
from cat_jax.data.sources import read_records, write_records
from cat_jax.models import LoraConfig, init_lora, load_pretrained, save_adapter
from cat_jax.tasks import TASKS
from cat_jax.testing import toy_model, toy_records
from experiments.command_line import parse_config
from experiments.compare import Args
from experiments.sweep_files import sweep_names

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "decoding.md").read_text()


@pytest.mark.slow
def test_the_decoding_example_runs(shared, monkeypatch):
    code = "".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    load = AutoTokenizer.from_pretrained

    def with_template(*arguments, **options):
        tokenizer = load(*arguments, **options)
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", with_template)
    found = {}
    exec(code.replace("Qwen/Qwen2.5-1.5B-Instruct", str(shared / "models/stories260K")), found)
    assert len(found["answers"]) == 2
    assert all(0 < len(answer) <= 50 for answer in found["answers"])


@pytest.mark.slow
def test_the_examples_of_weights_run(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "".join(re.findall(r"```python\n(.*?)```", (DOCS / "models.md").read_text(), re.DOTALL))
    source = shared / "models/stories260K"
    config, _ = load_pretrained(source)
    lora = LoraConfig(rank=3)
    adapters = init_lora(jax.random.key(0), config, lora)
    save_adapter("runs/NAME/adapter", config, adapters, lora, base=str(source))
    exec(code.replace("Qwen/Qwen2.5-1.5B", str(source)), {})
    assert len(AutoTokenizer.from_pretrained("exported")) == 512
    theirs, ours = (AutoConfig.from_pretrained(folder) for folder in (source, "exported"))
    assert ours.max_position_embeddings == theirs.max_position_embeddings
    assert ours.dtype == theirs.dtype
    assert load_pretrained("merged")[0] == config


RECIPES = (DOCS / "distributed.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```bash\n(.*?)```", RECIPES, re.DOTALL))
def test_the_commands_that_start_processes_are_shell(code):
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    for inner in re.findall(r"command='(.*?)'", code, re.DOTALL):
        subprocess.run(["bash", "-n"], input=inner, text=True, check=True)


def test_the_manifest_starts_as_many_processes_as_the_slice_has_hosts():
    (manifest,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", RECIPES, re.DOTALL))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    wide, high = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert job["completions"] == job["parallelism"]
    assert job["completions"] * container["resources"]["limits"]["google.com/tpu"] == wide * high
    subprocess.run(["bash", "-n"], input=container["args"][0], text=True, check=True)


def test_the_options_of_the_recipes_exist():
    for words in re.findall(r"experiments\.train_stg (\w+ .*?)--distributed", RECIPES, re.DOTALL):
        arguments = shlex.split(words.replace("\\\n", " ").replace('"$out"', "runs"))
        config = parse_config(
            Args,
            [*arguments, "--distributed"],
            program="experiments.train_stg",
            default="",
            description="",
            wrap=Args,
        ).run
        assert config.distributed
        assert config.train.mesh.fsdp in (16, 32)


def test_the_example_conversation_is_a_record(tmp_path):
    (line,) = re.findall(r"```json\n(.*?)```", (DOCS / "finetuning.md").read_text(), re.DOTALL)
    (tmp_path / "records.jsonl").write_text(line)
    (conversation,) = read_records(tmp_path / "records.jsonl")
    assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]
    (note,) = conversation.important
    assert note.effect.text == conversation.messages[2].content
    assert all(cause.text in conversation.messages[1].content for cause in note.causes)
    pinned = re.search(
        r'`\{"text": "(.*?)", "start": (\d+), "message": (\d+)\}`',
        (DOCS / "finetuning.md").read_text(),
    )
    text, start, message = pinned.groups()
    assert conversation.messages[int(message)].content.startswith(text, int(start))


EXAMPLES = re.findall(
    r"^## (.*?)\n(?:(?!^## ).)*?```python\n(.*?)```",
    (DOCS / "extending.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_the_examples_of_extensions_run(title, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    monkeypatch.setitem(sys.modules, "example", types.ModuleType("example"))  # for dataclasses
    exec(code, names)
    assert capsys.readouterr().out.strip()
    assert not list(tmp_path.iterdir())
    if "form" in title:
        mass = np.array([[[0.25, 0.5]]])
        np.testing.assert_allclose(names["squared"](mass, None, None), [[[0.28125, 0.125]]])
    if "task" in title:
        task = names["task"]
        ood = task.records("ood")
        right = [task.reference_rules()["shortcut"](record) == record.target for record in ood]
        assert 0 < sum(right) < len(ood)


def test_every_extension_point_has_an_example():
    assert len(EXAMPLES) == 4


@pytest.mark.slow
def test_the_examples_of_one_consumer_gpu_run(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records("train.jsonl", toy_records(count=16))
    _, train, measure = blocks("finetuning.md")
    model = str(shared / "models/stories260K")
    train = train.replace("meta-llama/Llama-3.1-8B", model).replace(
        "max_length=1024, batch_size=16, accumulate=16", "max_length=64, batch_size=4, steps=1"
    )
    names = {"cat": cat, "FOLDER": model}
    exec(train, names)
    assert Path("adapter/adapter_config.json").is_file()
    exec(measure, names)
    assert 0 < names["error"].mean() < names["error"].max()


@pytest.mark.slow
def test_the_example_of_fine_tuning_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "validation"):
        write_records(f"{name}.jsonl", toy_records(count=16))
    code, *_ = blocks("finetuning.md")
    toy, names = toy_model(), {}
    code = code.replace('"Qwen/Qwen2.5-1.5B"', "toy").replace("steps=250", "steps=2")
    exec(code, {"toy": toy}, names)
    assert names["run"].summary()["validation"]["first"]["step"] == 0
    assert load_pretrained("tuned")[0] == toy.model.config


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_examples_of_annotation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "annotation.md").read_text()
    (prior,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Path("math.yaml").write_text(prior)
    Path("patients.csv").write_text("Smoking,Yellow fingers,Weight,risk\n8,12,3,high\n")
    write_records("gsm8k.jsonl", [Record("3 a day, 4 days? ", "<<3*4=12>>12\n#### 12")])
    write_records("notes.jsonl", [Record("Smoking: 8. Tom has 3 apples. ", "x")])
    table, patterns, calculations, graph, assistant = blocks("annotation.md")
    names = {}
    exec(table, names)
    (record,) = cat.read_records("train.jsonl")
    assert record.input == "Smoking: 8, Yellow fingers: 12, Weight: 3. Answer: "
    exec(patterns, names)
    assert [x.text for x in names["records"][0].important[0].causes] == ["8", "3"]
    exec(calculations, names)
    assert len(names["records"][0].important) == 2
    exec(graph, names)
    assert [len(record.important[0].causes) for record in names["records"]] == [3]
    assert "quantity" in Path("prior.html").read_text()
    reply = names["prior"].examples[0][1].model_dump_json(exclude_none=True)
    said = types.SimpleNamespace(model="m", parameters={}, complete=lambda messages: Answer(reply))
    names["cat"] = types.SimpleNamespace(
        annotate=cat.annotate, AnswerCache=cat.AnswerCache, OpenAIClient=lambda *a, **k: said
    )
    exec(assistant, names)
    assert names["found"].records == names["records"]


def test_the_example_of_controls_runs():
    (code,) = blocks("controls.md")
    names = {}
    exec(code, names)
    assert len(names["run"].history) >= 1
    assert names["records"] != names["task"].records("train")


def test_the_example_of_evaluation_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "evaluation.md").read_text(), re.DOTALL)
    exec(code, {})
    assert "Score(value=" in capsys.readouterr().out


def test_the_example_of_loss_on_texts_runs(capsys):
    *_, code = blocks("lm_eval.md")
    exec(code, {"model": toy_model()})
    assert "nats/token" in capsys.readouterr().out


def test_the_examples_of_interventions_run():
    names = {}
    for code in blocks("interventions.md"):
        exec(code, names)
    assert names["patched"].restored[-1].round(4).tolist() == [0, 0, 0, 1]
    assert len(names["ids"]) == 4
    assert np.isfinite(names["logits"]).all()


def test_the_example_of_the_attention_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "".join(blocks("attention_page.md"))
    found = {"toy": toy_model(max_positions=300)}
    exec(re.sub(r"cat.load_language_model\(.*?\)", "toy", code), found)
    for name, models in (("attention.html", ["model"]), ("both.html", ["before", "after"])):
        page = Path(name).read_text()
        assert f'"models": {json.dumps(models)}' in page
        assert page.count('"cause"') > 1


@pytest.mark.slow
def test_the_examples_of_reading_attention_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("docs/figures").mkdir(parents=True)
    code = "".join(blocks("reading_attention.md"))
    for theirs, ours in {
        'cat.load_language_model("HuggingFaceTB/SmolLM2-135M-Instruct")': "toy",
        '("ood")[:24]': '("ood")[:3]',
        "(8, sentences=12)": "(2, sentences=2)",
        "steps=600, batch_size=64": "steps=2, batch_size=4",
        "eval_every=50": "eval_every=1",
        '("ood")[:100]': '("ood")[:4]',
        "train_records=10_000": "train_records=40",
    }.items():
        assert theirs in code
        code = code.replace(theirs, ours)
    names = {"toy": toy_model(max_positions=1024, num_layers=4, num_heads=3)}
    exec(code, names)
    assert capsys.readouterr().out.startswith("AttentionMaps(layers: 4, heads: 3, queries: ")
    figures = {path.name for path in Path("docs/figures").iterdir()}
    page = (DOCS / "reading_attention.md").read_text()
    drawn = set(re.findall(r"figures/(reading-\w+\.png)\)", page))
    assert figures == drawn
    assert all((DOCS / "figures" / name).stat().st_size < 300_000 for name in figures)


@pytest.mark.slow
def test_the_example_of_sweeps_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("sweeps.md")
    exec(code, {})
    assert [x.split(" 0.")[0] for x in capsys.readouterr().out.splitlines()] == [
        "plain fine-tuning",
        "CAT",
    ]
    assert len(list(Path("runs/mine/results").glob("*.answers.jsonl"))) == 4


def test_every_sweep_is_on_the_page_of_sweeps():
    page = (DOCS / "sweeps.md").read_text()
    assert [name for name in sweep_names() if f"`{name}`" not in page] == []


def test_the_example_of_tasks_runs(capsys):
    code, *_ = blocks("tasks.md")
    exec(code, {})
    assert "as a number?" in capsys.readouterr().out


def test_every_task_is_on_the_page_of_tasks():
    page = (DOCS / "tasks.md").read_text()
    assert [name for name in TASKS if f"`{name}`" not in page] == []


def test_every_method_is_on_the_page_of_controls():
    page = (DOCS / "controls.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert listed == METHODS.keys() - {"baseline", "cat", "cat_published", "cat_published_div"}


def test_the_example_of_prepared_data_runs(shared, tmp_path, monkeypatch):
    write_records(tmp_path / "train.jsonl", toy_records(count=60))
    (code,) = (code for code in blocks("data.md") if "prepare_data" in code)
    monkeypatch.chdir(tmp_path)
    model = str(shared / "models/stories260K")
    code = code.replace("Qwen/Qwen2.5-1.5B", model).replace(
        "cat.Training(", "cat.Training(steps=1, batch_size=2, "
    )
    names = {"cat": cat, "tokenizer": AutoTokenizer.from_pretrained(model)}
    exec(code, names)
    assert len(names["examples"]) == names["examples"].manifest.sequences >= 2
    assert names["run"].history[-1]["step"] == 1


def test_the_example_of_shown_records_runs(shared, tmp_path, monkeypatch, capsys):
    write_records(tmp_path / "train.jsonl", toy_records(count=3))
    (code,) = (code for code in blocks("data.md") if "show_records" in code)
    monkeypatch.chdir(tmp_path)
    exec(
        "import cat_jax as cat\n"
        + code.replace("Qwen/Qwen2.5-1.5B", str(shared / "models/stories260K")),
        {},
    )
    assert "train.jsonl, line 3" in capsys.readouterr().out
