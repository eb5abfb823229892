"""Annotation against a real server with a real model: ``transformers serve``, SmolLM2-135M.

The model is too small to annotate well: the wire, the schema, rejects and their review are tested.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cat_jax.annotation.review import read_review_items
from cat_jax.data.records import Record
from cat_jax.data.sources import write_records

ROOT = Path(__file__).resolve().parents[2]
RECORDS = [Record("Tom has 3 apples and buys 2. How many has he now? Answer: ", "5")]


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "install", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """What the server and the conversion of the weights need besides."""
    folder = tmp_path_factory.mktemp("packages")
    pip("--target", folder, "fastapi", "uvicorn")
    pip("--target", folder, "--no-deps", "gguf")
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def model(shared, packages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "smollm2"
    tool = [sys.executable, shared / "tools/smollm2", folder]
    subprocess.run(tool, check=True, env=packages, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def address(model, packages):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    words = ["serve", str(model), "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=packages, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def wait_for(url, process):
    for _ in range(240):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the server does not answer")


def annotate(source, out, model, address):
    command = [
        *(sys.executable, "-m", "experiments.annotate", source, "--prior", "math", "--out", out),
        *("--model", model, "--base-url", address, "--max-tokens", 96),
    ]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_real_model_is_asked_its_rejects_are_reviewed_and_nothing_is_asked_twice(
    address, model, tmp_path
):
    source, out = tmp_path / "raw.jsonl", tmp_path / "out.jsonl"
    write_records(source, RECORDS)
    status, said, errors = annotate(source, out, model, address)
    assert status == 0, errors
    answers = [json.loads(x.read_text()) for x in Path(f"{out}.cache").rglob("*.json")]
    assert 1 <= len(answers) <= 2
    assert all(x["prompt_tokens"] > 100 and x["completion_tokens"] > 0 for x in answers)
    (item,) = read_review_items(out)
    assert item.record.text == RECORDS[0].text
    assert item.reasons or item.edges
    assert said.splitlines()[-1].startswith("1 are rejected" if item.reasons else "0 are")
    # Without the server the answers are there.
    assert annotate(source, out, model, "http://127.0.0.1:9/v1")[:2] == (0, said)
