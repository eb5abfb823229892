"""Where lm-evaluation-harness is not installed; the rest is in tests/extras/test_lm_eval.py."""

import sys

import pytest

from cat_jax.errors import InputError
from cat_jax.evaluation import harness_model
from cat_jax.testing import toy_model
from experiments import lm_eval as command


def test_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"pip install 'cat-jax\[lm-eval\]'"):
        harness_model(toy_model())
    out = ["--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["lm_eval", "MODEL", "--tasks", "arc_easy", *out])
    with pytest.raises(InputError, match=r"pip install 'cat-jax\[lm-eval\]'"):
        command.main()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--template-options", "date=2026-01-31"], "add --chat"),
        (["--include-path", "nowhere"], "nowhere, which is no folder"),
        (["--limit", "0"], "limit must be at least 1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(words, message, monkeypatch, tmp_path):
    out = ["--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["lm_eval", "MODEL", "--tasks", "arc_easy", *out, *words])
    with pytest.raises(InputError, match=message):
        command.main()


def test_names_of_tasks_may_be_patterns_and_lists(tmp_path):
    class Manager:
        all_tasks = ("arc_easy", "arc_challenge", "mmlu")

        def match_tasks(self, names):
            import fnmatch

            return sorted(x for name in names for x in fnmatch.filter(self.all_tasks, name))

    found = command.find_tasks(["mmlu,arc_e*", "mmlu"], Manager())
    assert found == ["arc_easy", "mmlu"]
    with pytest.raises(InputError, match=r"'arc_eazy'; did you mean arc_easy\?"):
        command.find_tasks(["arc_eazy"], Manager())
    with pytest.raises(InputError, match="python -m lm_eval ls tasks"):
        command.find_tasks(["zzz"], Manager())
    with pytest.raises(InputError, match="--tasks names no task"):
        command.find_tasks([",", ""], Manager())
