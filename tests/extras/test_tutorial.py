"""The tutorial from a table to a report, as it stands there, with a scripted assistant."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for browser.py
sys.path.insert(0, str(Path(__file__).parents[1] / "annotation"))  # for scripted_server.py

from browser import open_browser
from scripted_server import serve

import cat_jax as cat
from cat_jax.models import save_pretrained
from cat_jax.testing import toy_model

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorial_own_data.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
SMALL = "--train.steps 4 --train.batch-size 8 --train.max-length 128"


def assistant(body):
    """Name the number of lines; of Bremen tickets with 8 h nothing of use."""
    asked = next(x["content"] for x in body["messages"][::-1] if x["content"].startswith("{"))
    record = json.loads(asked)
    if "Bremen" in record["input"] and "since 8" in record["input"]:
        return "I cannot say."
    cause = {"text": re.search(r"\d+ lines", record["input"])[0], "kind": "extent"}
    effect = {"text": record["target"], "kind": "answer"}
    return json.dumps({"annotations": [{"effect": effect, "causes": [cause]}]})


def shell(block, model, environment):
    """Run a command of the page; its model is the toy, and its training short."""
    words = shlex.split(block.replace("\\\n", " ").replace("Qwen/Qwen2.5-1.5B", str(model)))
    assert words[0] == "python"
    more = shlex.split(SMALL) if "experiments.compare" in words else []
    done = subprocess.run(
        [sys.executable, *words[1:], *more], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def accept_all(folder):
    """Drop what was rejected, accept the rest, and export, as a person would."""
    from selenium.webdriver.common.action_chains import ActionChains

    driver = open_browser(folder)
    try:
        driver.get(f"file://{folder / 'review.html'}")
        for _ in range(60):
            rejected = "rejected" in driver.find_element("id", "title").text
            ActionChains(driver).send_keys("d" if rejected else "a").perform()
        assert driver.find_element("id", "progress").text.startswith("60 of 60 decided")
        driver.find_element("id", "export").click()
        for _ in range(100):
            if (folder / "reviewed.jsonl").exists():
                break
            time.sleep(0.05)
        time.sleep(0.2)
    finally:
        driver.quit()


def test_the_tutorial_runs_from_the_table_to_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy = toy_model()
    save_pretrained(tmp_path / "toy", toy.model.config, toy.params, toy.tokenizer)
    names, said = {}, []
    with serve(assistant) as (address, script):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        for kind, block in BLOCKS:
            if kind == "yaml":
                Path("priority.yaml").write_text(block)
            elif kind == "python":
                exec(
                    block.replace('"Qwen/Qwen2.5-1.5B"', '"toy"').replace("steps=250", "steps=4"),
                    names,
                )
            else:
                said.append(shell(block, tmp_path / "toy", environment))
                if "--dry-run" in block:
                    assert script.requests == []
                if "experiments.review" in block:
                    accept_all(tmp_path)
    plan, annotated, review, report = said
    assert "requests" in plan
    assert "cost: about" in plan
    count = len(cat.read_records("annotated.jsonl"))
    assert 30 < count < 60
    assert annotated.splitlines()[-1] == f"{60 - count} are rejected: annotated.jsonl.rejects.jsonl"
    assert f"60 records, {60 - count} of them rejected" in review
    reviewed = cat.read_records("reviewed.jsonl")
    assert reviewed == cat.read_records("annotated.jsonl")
    assert all(re.fullmatch(r"\d+ lines", x.important[0].causes[0].text) for x in reviewed)
    assert Path("runs/own_data/report.md").exists()
    assert "ood" in report.lower()
    assert f"{count} annotated, {60 - count} rejected" in capsys.readouterr().out
    assert Path("review_again.html").exists()
    assert [run.method.name for run in names["comparison"].runs] == ["baseline", "cat"]


@pytest.mark.parametrize("link", re.findall(r"\]\(([\w_]+\.md)", PAGE))
def test_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).exists()
