"""What the README shows runs as it stands there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import cat_jax as cat
from cat_jax.data.records import Annotation, Span
from cat_jax.data.sources import read_records, write_records

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_line_is_a_record(tmp_path):
    (line,) = blocks("json")
    (tmp_path / "records.jsonl").write_text(line)
    (record,) = read_records(tmp_path / "records.jsonl")
    assert record.important == (Annotation(Span("High Risk"), (Span("Smoking: 8"),)),)
    pinned = json.loads(re.search(r'`(\{"text".*?\})`', README)[1])
    assert record.text[pinned["start"] :].startswith(pinned["text"])


@pytest.mark.slow
def test_the_first_example_runs(tmp_path, monkeypatch):
    """On a toy model, fewer steps and fewer test records."""
    monkeypatch.chdir(tmp_path)
    write_records("train.jsonl", cat.testing.toy_records())
    code = blocks("python")[0].replace('"Qwen/Qwen2.5-1.5B"', "cat.testing.toy_model()")
    code = code.replace("steps=250", "steps=2, batch_size=8").replace(
        "stg()", "stg(test_records=3)"
    )
    found = {}
    exec(code, found)
    assert found["run"].history
    assert {"iid", "ood"} == set(found["evaluation"])
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_the_example_of_looking_inside_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = cat.Record("Smoking: 8, Yellow fingers: 12. Answer: ", "High Risk")
    found = {"cat": cat, "run": cat.testing.toy_model(), "records": [record]}
    exec(blocks("python")[1], found)
    assert found["maps"].between("Smoking: 8", "High Risk").values.shape == (2, 2)
    assert Path("attention.html").stat().st_size > 40_000


@pytest.mark.slow
def test_the_example_of_the_parts_runs(shared):
    code = blocks("python")[2].replace("Qwen/Qwen2.5-1.5B", str(shared / "models/stories260K"))
    found = {}
    exec(code, found)
    maps, tokens = found["maps"], found["tokens"]
    length = tokens.shape[1]
    assert maps.shape == (5, 1, 8, length, length)
    np.testing.assert_allclose(found["aux"].mass[..., -1], maps[..., -1, :2].sum(-1), atol=1e-5)
    expected = -np.log(maps[..., -1, :2].sum(-1).mean())
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
