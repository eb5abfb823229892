"""Apache Beam and tensorflow-datasets, which the tests install beside: they are large."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "annotation"))  # for scripted_server.py

from scripted_server import serve

from cat_jax.data.shards import prepare_data
from cat_jax.data.sources import read_records, write_records
from cat_jax.models import save_pretrained
from cat_jax.tasks import TASKS
from cat_jax.testing import toy_dicts, toy_model, toy_tokenizer

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import sys
from cat_jax.tasks import tfds_builders
builder, config, folder, manual = sys.argv[1:]
options = {"config": config} if config else {}
if manual:
    import tensorflow_datasets as tfds
    settings = tfds.download.DownloadConfig(manual_dir=manual)
else:
    settings = None
made = getattr(tfds_builders, builder)(data_dir=folder, **options)
made.download_and_prepare(download_config=settings)
assert "tensorflow" not in sys.modules
"""
READ = """
import json, os, sys
from cat_jax.data.sources import read_records, training_record_fields
rows = [training_record_fields(record) for record in read_records(sys.argv[1])]
assert "tensorflow" not in sys.modules
print(json.dumps(rows))
"""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def extras(*names):
    """Return the requirements of the project's extras."""
    listed = [word.partition(";") for word in metadata.requires("cat-jax")]
    wanted = [f"extra=={name!r}" for name in names]
    return [
        package.strip()
        for package, _, marker in listed
        if marker.replace(" ", "").replace('"', "'") in wanted
    ]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with both, without TensorFlow."""
    folder = tmp_path_factory.mktemp("packages")
    pip("install", "--target", folder, *extras("beam", "tfds"), "mlcroissant")
    return folder


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory):
    """A folder with TensorFlow, which the command ``tfds`` needs and nothing else."""
    folder = tmp_path_factory.mktemp("tensorflow")
    pip("install", "--target", folder, "tensorflow-cpu")
    return folder


def run(folders, *arguments, **environment):
    paths = os.pathsep.join(map(str, [*folders, ROOT]))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def succeed(folders, *arguments, **environment):
    status, out, err = run(folders, *arguments, **environment)
    assert status == 0, out + err
    return out


def read_back(packages, name, data):
    """Return the records of ``tfds:NAME`` as a process without TensorFlow reads them."""
    out = succeed([packages], "-c", READ, f"tfds:{name}", TFDS_DATA_DIR=str(data))
    return read_records(json.loads(out))


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy = toy_model()
    save_pretrained(folder, toy.model.config, toy.params, toy.tokenizer)
    return folder


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in toy_dicts(count=50)))
    return file


def prepare(packages, source, out, model, *more):
    return run(
        [packages],
        *("-m", "experiments.prepare_data", source, out, "--model.name", model),
        *("--train.max-length", "31", "--train.pack", "--records-per-shard", "11"),
        *("--runner", "DirectRunner", "--workers", "2", *more),
    )


def test_beam_writes_the_same_shards(packages, model, source, tmp_path):
    expected = tmp_path / "expected"
    options = {"max_length": 31, "pack": True, "records_per_shard": 11}
    prepare_data(str(source), expected, toy_tokenizer(), **options)
    out = tmp_path / "out"
    status, said, errors = prepare(packages, source, out, model)
    assert status == 0, errors
    assert said.startswith("50 records in ")
    assert content(out) == content(expected)
    assert len(content(out)) == 6
    # Again: nothing is made anew, and nothing changes.
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert prepare(packages, source, out, model)[0] == 0
    assert content(out) == content(expected)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}


def test_beam_names_a_bad_record(packages, model, source, tmp_path):
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines[:40], '{"input": "a"}', *lines[40:]]))
    out = tmp_path / "out"
    status, _, errors = prepare(packages, source, out, model)
    assert status == 2
    assert f"{source}, line 41" in errors.strip().splitlines()[-1]
    assert not (out / "manifest.json").exists()
    source.write_text("\n".join(lines))
    assert prepare(packages, source, out, model)[0] == 0
    assert (out / "manifest.json").exists()


def test_builders_without_tensorflow(packages, tmp_path):
    data = tmp_path / "data"
    for builder, config in (("Stg", "s"), ("StgH", ""), ("Scm", "draw_3")):
        succeed([packages], "-c", BUILD, builder, config, data, "")
    assert not [path for path in data.rglob("*") if "tfrecord" in path.name]
    for name, task in (("stg/s", TASKS["stg_s"]), ("stg_h", TASKS["stg_h"])):
        for split in task.splits:
            assert read_back(packages, f"{name}:{split}", data) == task.records(split)


def test_annotated_files_of_ones_own(packages, tmp_path):
    manual, data = tmp_path / "manual", tmp_path / "data"
    manual.mkdir()
    records = read_records(toy_dicts(count=7))
    write_records(manual / "train.jsonl", records)
    write_records(manual / "ood.jsonl", records[:3])
    succeed([packages], "-c", BUILD, "AnnotatedJsonl", "records", data, manual)
    assert read_back(packages, "annotated_jsonl/records:train", data) == records
    assert read_back(packages, "annotated_jsonl/records:ood", data) == records[:3]


def test_conversations_of_ones_own(packages, tmp_path):
    manual, data = tmp_path / "manual", tmp_path / "data"
    manual.mkdir()
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "a"}]
    turns[1]["important"] = [{"a": ["a"]}]
    tool = {"type": "function", "function": {"name": "f"}}
    records = read_records([{"messages": turns}, {"messages": turns, "tools": [tool]}])
    write_records(manual / "train.jsonl", records)
    succeed([packages], "-c", BUILD, "AnnotatedJsonl", "conversations", data, manual)
    assert read_back(packages, "annotated_jsonl/conversations:train", data) == records
    status, _, errors = run([packages], "-c", BUILD, "AnnotatedJsonl", "records", data, manual)
    assert status != 0
    assert "conversations are annotated_jsonl/conversations" in errors


def test_the_command_tfds_build(packages, tensorflow, tmp_path):
    succeed(
        [packages, tensorflow],
        *("-m", "tensorflow_datasets.scripts.cli.main", "build", "stg/m"),
        *("--imports", "cat_jax.tasks.tfds_builders", "--data_dir", tmp_path),
    )
    assert read_back(packages, "stg/m:iid", tmp_path) == TASKS["stg_m"].records("iid")


AGES = [20, 21, 22, 23, 21, 25, 26]


def answer_by_age(body):
    """Name the age; of 23 say nothing of use."""
    record = json.loads(next(x for x in body["messages"][::-1] if "{" in x["content"])["content"])
    age = record["input"].split()[1].rstrip(",")
    cause, effect = {"text": age, "kind": "value"}, {"text": "High", "kind": "answer"}
    right = json.dumps({"annotations": [{"effect": effect, "causes": [cause]}]})
    return "no" if len(body["messages"]) > 4 or age == "23" else right


def annotate(packages, source, out, *more):
    return run(
        [packages],
        *("-m", "experiments.annotate", source, "--prior", "risk", "--out", out, "--model", "m"),
        *more,
    )


def test_beam_asks_for_annotations_and_shares_the_cache(packages, tmp_path):
    source, whole, out = (tmp_path / f"{name}.jsonl" for name in ("raw", "whole", "out"))
    rows = [{"input": f"Age: {age}, Shoes: 41. Risk: ", "target": "High"} for age in AGES]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    beam = ["--runner", "DirectRunner", "--workers", "2"]
    with serve(answer_by_age) as (address, script):
        assert annotate(packages, source, whole, "--base-url", address)[0] == 0
        asked = len(script.requests)
        assert asked == 7  # six different records, one of them twice
        status, said, errors = annotate(packages, source, out, "--base-url", address, *beam)
        assert status == 0, errors
        assert "6 accepted" in said
        assert "1 rejected" in said
        # Workers may ask for equal records at the same time.
        assert asked <= len(script.requests) - asked <= asked + 1
        assert out.read_bytes() == whole.read_bytes()
        rejects = [path.with_name(f"{path.name}.rejects.jsonl") for path in (out, whole)]
        assert rejects[0].read_bytes() == rejects[1].read_bytes()
        before = len(script.requests)
        assert annotate(packages, source, out, "--base-url", address, *beam)[0] == 0
        assert len(script.requests) == before
    down = "http://127.0.0.1:9/v1"
    status, _, errors = annotate(packages, source, tmp_path / "d.jsonl", "--base-url", down, *beam)
    assert status == 1
    assert "the server cannot be reached" in errors.strip().splitlines()[-1]
