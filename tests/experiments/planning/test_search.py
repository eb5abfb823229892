"""The search over a compiler that accepts what the test says."""

import json
from dataclasses import replace

import pytest

from cat_jax.errors import InputError
from cat_jax.models import ModelConfig
from experiments.planning import search
from experiments.planning.costs import memory
from experiments.planning.estimate import estimate, expected_received, expected_seconds
from experiments.planning.job import Job, Layout, layouts
from experiments.planning.pages import (
    EXPLANATION,
    add_plan,
    as_values,
    fit_table,
    merged,
    page,
    step_table,
)
from experiments.planning.program import Program, Refused
from experiments.planning.slices import GIB, find_slice

MODEL = ModelConfig(4096, 1024, 3072, 8, 16, 8, 64, attention="mosaic_tpu", remat="full")
JOB = Job("small", MODEL, "all", 2048, 16, 128)
SLICE = find_slice("v5e-16")
HUGE = replace(JOB, model=replace(MODEL, width=16384, mlp_width=65536, num_layers=200))


def program(mass, peak=3 * GIB):
    return Program(GIB, 5 * GIB, peak, {"all-gather": 4e9 + mass, "all-reduce": 1e9}, 9.0)


@pytest.fixture
def compiler(monkeypatch):
    """Which layouts were compiled, and which of them are to be accepted."""
    asked, accepted = [], set()

    def compile_step(job, layout, devices, mass):
        asked.append((layout, mass))
        if not accepted or layout in accepted:
            return program(mass)
        return Refused("exceeds available HBM")

    monkeypatch.setattr(search, "compile_step", compile_step)
    return asked, accepted


def plan(job=JOB, tries=4, candidates=None):
    candidates = layouts(job, 16) if candidates is None else candidates
    return search.make_plan(job, SLICE, [], candidates, tries, lambda line: None)


def test_the_fastest_is_asked_first_and_taken(compiler):
    found = plan()
    seconds = {one: expected_seconds(JOB, one, SLICE) for one in layouts(JOB, 16)}
    best = found.layout
    assert all(
        ours <= 1.02 * least
        for ours, least in zip(seconds[best], min(seconds.values()), strict=True)
    )
    assert compiler[0] == [(best, True), (best, False)]
    assert found.steps["plain"].program == program(False)
    assert found.steps["cat"].estimate == estimate(JOB, best, SLICE, True, 5e9 + 1)


def test_after_a_refusal_comes_the_next(compiler):
    order = search.ranked(JOB, SLICE, layouts(JOB, 16))
    compiler[1].add(order[2])
    found = plan()
    assert found.layout == order[2]
    assert list(found.refused) == [str(order[0]), str(order[1])]
    compiler[1].clear()
    compiler[1].add(order[3])
    with pytest.raises(InputError, match=r"3 layouts were compiled and none fits .*--tries"):
        plan(tries=3)


def test_a_peak_beyond_the_chip_is_a_refusal(monkeypatch):
    monkeypatch.setattr(search, "compile_step", lambda *given: program(True, peak=16 * GIB))
    one = [Layout(1, 16, 1)]
    found = plan(candidates=one)
    assert found.layout is None
    assert found.refused == {"1 x 16 x 1 x 1": "16.00 GiB at the peak"}


def test_the_hopeless_is_not_compiled(compiler):
    found = plan(HUGE)
    assert (found.layout, found.steps, compiler[0]) == (None, {}, [])
    assert found.needs == min(memory(HUGE, layout) for layout in layouts(HUGE, 16)) > 16 * GIB


def test_time_is_between_its_longest_part_and_the_sum():
    layout = Layout(2, 8, 1)
    one = estimate(JOB, layout, SLICE, False, received=7e9)
    assert one.links == pytest.approx(7e9 / 100e9)
    assert one.full_overlap == max(one.matmul + one.kernels, one.hbm, one.links)
    assert one.no_overlap == pytest.approx(one.matmul + one.kernels + one.hbm + one.links)
    assert one.mfu(one.full_overlap) < 1
    assert one.mfu(2.0) == pytest.approx(one.flops / 2 / 16 / 197e12)


def test_expected_traffic_by_hand():
    layers = 8 * (1024 * 64 * (16 + 2 * 8) + 16 * 64 * 1024 + 3 * 1024 * 3072)
    output = 4096 * 1024
    copies, _ = expected_received(JOB, Layout(16, 1, 1))
    assert copies == pytest.approx((8 * layers + 8 * output) * 15 / 16)
    gathered, sums = expected_received(JOB, Layout(1, 16, 1))
    assert gathered == pytest.approx((8 * layers + 10 * output) * 15 / 16)
    assert sums == 0
    _, sums = expected_received(JOB, Layout(1, 8, 2))
    assert sums == 2 * 6 * 8 * 2 * (2 * 2048 * 1024) / 2
    shared, exchanged = expected_received(JOB, Layout(1, 8, 1, 2))
    assert shared == gathered
    heads = 64 * (16 + 8 + 8 + 16)
    assert exchanged == 3 * 8 * 2 * (2048 * heads) / 2
    frozen, _ = expected_received(replace(JOB, tuned="lora"), Layout(1, 16, 1))
    assert frozen == pytest.approx((4 * layers + 2 * output) * 15 / 16)


def test_pages_say_what_fits_and_what_does_not(compiler):
    values = [json.loads(json.dumps(as_values(one))) for one in (plan(), plan(HUGE))]
    values[1]["model"] = "huge"
    fits, does_not = fit_table(values).splitlines()[2:]
    assert "| yes |" in fits
    assert "3.00 | 3.00 | 15.75 |" in fits
    assert "| no |" in does_not
    assert f"needs {values[1]['closed_form_bytes'] / GIB:.2f}" in does_not
    refused = fit_table([values[1] | {"refused": {"1 x 16 x 1 x 1": "too large"}}])
    assert "| no |  |  | refused: 1 x 16 x 1 x 1 |" in refused
    plain, cat = step_table(values).splitlines()[2:]
    assert "| plain |" in plain
    assert "| CAT |" in cat
    assert "all-gather 3.73, all-reduce 0.93" in cat
    assert len({line.count("|") for line in step_table(values).splitlines()}) == 1
    assert len({line.count("|") for line in fit_table(values).splitlines()}) == 1
    values[0]["compiler"] = values[1]["compiler"] = "this one"
    assert page(values).endswith("|\n\nCompiled by this one.\n")
    assert page(values).startswith(f"# Plans for TPU pods\n\n{EXPLANATION}\n\n|")


def test_a_new_plan_takes_the_place_of_the_old():
    job = {"tuned": "all", "topology": "t", "length": 1, "sequences": 1, "remat": "full"}
    old = [{"model": name} | job for name in ("a", "b")]
    new = old[1] | {"fits": True}
    assert merged(old, [new]) == [old[0], new]
    assert merged(old, [new | {"length": 2}]) == [*old, new | {"length": 2}]


def test_plans_of_other_jobs_stay_in_the_files(compiler, tmp_path):
    small = as_values(plan()) | {"compiler": "this one"}
    add_plan(tmp_path / "a/v1.5", small)
    add_plan(tmp_path / "a/v1.5", small | {"model": "other"})
    add_plan(tmp_path / "a/v1.5", small | {"chips": 17})
    plans = json.loads((tmp_path / "a/v1.5.json").read_text())
    assert [(one["model"], one["chips"]) for one in plans] == [("small", 17), ("other", 16)]
    assert (tmp_path / "a/v1.5.md").read_text() == page(plans)
