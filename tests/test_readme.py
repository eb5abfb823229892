"""What the README shows runs as it stands there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cat_jax.data.records import Annotation, Span, read_jsonl

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def block(language):
    (code,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return code


def test_the_example_row_is_a_record(tmp_path):
    (tmp_path / "rows.jsonl").write_text(block("json"))
    (record,) = read_jsonl(tmp_path / "rows.jsonl")
    assert record.important == (Annotation(Span("High Risk"), (Span("Smoking: 8"),)),)
    pinned = json.loads(re.search(r'`(\{"text".*?\})`', README)[1])
    assert record.text[pinned["start"] :].startswith(pinned["text"])


@pytest.mark.slow
def test_the_notebook_example_runs(shared):
    code = block("python").replace("Qwen/Qwen2.5-1.5B", str(shared / "models/stories260K"))
    found = {}
    exec(code, found)
    maps, tokens = found["maps"], found["tokens"]
    length = tokens.shape[1]
    assert maps.shape == (5, 1, 8, length, length)
    np.testing.assert_allclose(found["aux"].mass[..., -1], maps[..., -1, :2].sum(-1), atol=1e-5)
    expected = -np.log(maps[..., -1, :2].sum(-1).mean())
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
