import re
from pathlib import Path

from cat_jax.tasks import random_scm
from experiments import list_scms

ROOT = Path(__file__).parents[2]


def test_the_list_is_made_anew(tmp_path, capsys):
    page = tmp_path / "scm.md"
    list_scms.main([str(page), "--draws", "2", "--seed", "3"])
    assert capsys.readouterr().out.strip() == str(page)
    rows = [line for line in page.read_text().splitlines() if re.match(r"\| \d", line)]
    scores = random_scm(4).reference_scores()
    shown = f"{100 * scores['oracle']['iid']:.0f} / {100 * scores['oracle']['ood']:.0f}"
    assert rows[1].startswith(f"| 4 | {random_scm(4).model_seed} |")
    assert f"| {shown} |" in rows[1]
    listed = (ROOT / "benchmarks/scm.md").read_text()
    assert all(row in listed for row in rows)
    assert len(re.findall(r"^\| \d", listed, re.MULTILINE)) == 20
