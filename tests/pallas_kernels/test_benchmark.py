"""The benchmark measures what it says, and its yardstick is right."""

import dataclasses
import json
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pallas_kernels.benchmark import __main__ as command
from pallas_kernels.benchmark import check
from pallas_kernels.benchmark.candidates import candidates, default_names
from pallas_kernels.benchmark.exact import exact_rows, relative_error, sample_rows
from pallas_kernels.benchmark.measure import Timing, compile_program, time_in_turn
from pallas_kernels.benchmark.report import page
from pallas_kernels.benchmark.results import Result
from pallas_kernels.benchmark.shapes import Shape, make_case
from pallas_kernels.benchmark.targets import distances
from pallas_kernels.causal_mass_attention.reference import xla


@pytest.mark.parametrize("layout", ["whole", "packed"])
@pytest.mark.parametrize("annotation", ["dense", "sparse"])
def test_exact_rows_are_those_of_the_definition(annotation, layout):
    case = make_case(Shape(61, 6, 3, 5, annotation, layout))
    assert (case.segment_ids is None) == (layout == "whole")

    def attend(query):
        arrays = query, case.key, case.value, case.q_bits, case.k_bits
        return xla(*arrays, case.segment_ids, 5**-0.5)

    (out, mass), pullback = jax.vjp(attend, case.query)
    (d_query,) = pullback((case.d_out, case.d_mass))
    rows = sample_rows(61)
    assert {0, 60} <= set(rows.tolist())
    for head in (0, 5):
        exact = exact_rows(case, head, rows)
        np.testing.assert_allclose(out[0, rows, head], exact.out, atol=1e-5)
        np.testing.assert_allclose(mass[0, head, rows], exact.mass, atol=1e-5)
        np.testing.assert_allclose(d_query[0, rows, head], exact.d_query, atol=1e-5)
    assert exact.mass.max() > 0.1


def test_relative_error():
    assert relative_error(np.array([3.0, 4.0]), np.array([3.0, 5.0])) == pytest.approx(
        np.sqrt(0.5) / np.sqrt(17)
    )


def test_the_shapes(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    chosen = list(command.chosen_shapes(command.complete(command.Args(out=None))))
    assert all(len(shapes) == 2 for shapes in chosen)
    shapes = [shape for pair in chosen for shape in pair]
    assert len(set(shapes)) == len(shapes) == 32
    assert {shape.length for shape in shapes} == {2048, 4096, 8192, 32_768}
    assert {shape.size for shape in shapes} == {64, 128}
    assert shapes[0].forward_flops == 2 * 4096**2 * 128 * 32


def test_a_packed_shape_counts_the_pairs_of_its_records():
    shape = Shape(200, 6, 3, 5, "sparse", "packed")
    assert shape.ends == (14, 40, 62, 96, 124, 158, 180, 200)
    ids = make_case(shape).segment_ids[0]
    pairs = (ids[:, None] == ids[None]).sum()
    assert shape.forward_flops == 2 * 5 * 6 * pairs
    assert np.diff(ids).tolist().count(1) == 7


def test_time_grows_with_the_work():
    def work(count):
        def function(x):
            return jax.lax.fori_loop(0, count, lambda _, y: y @ y / 100, x)

        arguments = [np.ones((100, 100), np.float32)]
        return compile_program(function, arguments).on(arguments)

    little, much = time_in_turn([work(5), work(500)], samples=5)
    assert little.low <= little.median <= little.high
    assert much.median > 10 * little.median


def test_the_command(tmp_path, monkeypatch):
    words = ["--lengths", "96", "--heads", "12", "--sizes", "64", "--samples", "2"]
    words += ["--layouts", "whole", "packed"]
    path = tmp_path / "benchmarks/cpu"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--out", str(path), *words])
    command.main()
    found = json.loads(path.with_suffix(".json").read_text())
    assert found["platform"] == "cpu"
    measured = [row for row in found["results"] if row["refusal"] is None]
    assert {row["shape"]["annotation"] for row in measured} == {"dense", "sparse"}
    for row in measured:
        assert all(error < 1e-5 for error in row["errors"].values())
        assert min(row["both"][0], row["forward"][0]) > 0
        without = row["candidate"] in ("stock attention", "torch sdpa")
        has_mass = not without and "no mass" not in row["candidate"]
        assert ("mass" in row["errors"]) == has_mass
        assert row["resident_bytes"] is None or 0 <= row["resident_bytes"] < 2**29
    names = {row["candidate"] for row in measured}
    assert {"stock attention", "xla", "xla_chunked", "xla_chunked, no mass"} <= names
    assert ("torch sdpa" in names) == (find_spec("torch") is not None)
    assert {row["shape"]["layout"] for row in measured} == {"whole", "packed"}
    assert {row["candidate"] for row in measured if row["shape"]["layout"] == "packed"} == {
        name for name in names if name not in ("stock attention", "torch sdpa")
    }
    assert found["targets"] == []  # those of a kernel that does not run here
    assert found["left_out"] == []
    assert found["jax"] == jax.__version__
    page = path.with_suffix(".md").read_text()
    assert page.count("\n## ") == 4
    assert "| xla_chunked |" in page


def test_no_shape_is_begun_after_the_time(tmp_path, monkeypatch):
    words = ["--lengths", "8", "9", "--heads", "12", "--sizes", "64", "--minutes", "-1"]
    monkeypatch.setattr(sys, "argv", ["benchmark", "--out", str(tmp_path / "none"), *words])
    command.main()
    found = json.loads((tmp_path / "none.json").read_text())
    assert found["results"] == []
    assert len(found["left_out"]) == 4
    assert "out of time: T 8, 12/2 x 64, dense; T 8," in (tmp_path / "none.md").read_text()


def test_distances_to_the_targets():
    def result(name, shape, forward, both):
        times = (Timing(x, x, x) for x in (forward, both))
        return Result(name, shape, None, *times, errors={"out": 0.0})

    short, long = (Shape(t, 32, 8, 128, "sparse") for t in (2048, 8192))
    packed = dataclasses.replace(long, annotation="dense", layout="packed")
    small = dataclasses.replace(short, size=64)
    results = [
        *(result("stock attention", shape, 0.9, 4.0) for shape in (short, long, small)),
        *(result("mosaic_gpu", shape, 1.0, 5.0) for shape in (short, long, packed, small)),
        *(result("mosaic_gpu, no mass", shape, 0.95, 5.5) for shape in (short, long, packed)),
        Result("mosaic_gpu, no mass", small, "it cannot"),
        result("augmented_wide", long, 2.0, 9.0),
    ]
    found = {
        (x.shape, x.phase, x.target.against): (x.target.least, round(x.ratio, 3))
        for x in distances(results)
    }
    itself, stock = "itself without the mass", "stock attention"
    assert found == {
        (str(short), "forward", itself): (0.99, 0.95),
        (str(short), "both", itself): (0.99, 1.1),
        (str(long), "forward", itself): (0.99, 0.95),
        (str(long), "both", itself): (0.99, 1.1),
        (str(long), "forward", stock): (0.90, 0.9),
        (str(long), "both", stock): (0.90, 0.8),
        (str(packed), "forward", itself): (0.97, 0.95),
        (str(packed), "both", itself): (0.97, 1.1),
        (str(small), "forward", stock): (0.82, 0.9),
        (str(small), "both", stock): (0.82, 0.8),
    }
    text = page({}, results)
    assert (
        "| T 8192, 32/8 x 128, sparse | forward | stock attention | 0.90 | 0.90 | reached |" in text
    )
    line = "| forward and backward | stock attention | 0.90 | 0.80 | -0.10 |"
    assert f"| T 8192, 32/8 x 128, sparse {line}" in text


@pytest.mark.parametrize(
    ("capability", "wide"), [("8.0", "on Hopper only"), ("9.0", None), ("12.0", "on Hopper only")]
)
def test_both_ways_of_cudnn_are_measured_side_by_side(monkeypatch, capability, wide):
    device = SimpleNamespace(device_kind="some GPU", compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    shape = Shape(4096, 32, 8, 128, "dense")
    found = {c.name: c.refusal for c in candidates(shape, "bfloat16", default_names())}
    assert list(found)[:3] == ["stock attention", "augmented_wide", "augmented_second"]
    assert (found["augmented_wide"] is None) if wide is None else wide in found["augmented_wide"]
    assert found["augmented_second"] is found["stock attention"] is None
    packed = dataclasses.replace(shape, layout="packed")
    found = {c.name: c.refusal for c in candidates(packed, "bfloat16", default_names())}
    assert "takes no segments" in found["stock attention"]
    assert "takes no segment_ids" in found["augmented_second"]


def test_lengths_depend_on_the_machine():
    request = command.complete(command.Args(out=None))
    assert request.lengths == (256, 1024)
    assert request.dtype == "float32"
    chosen = command.chosen_shapes(dataclasses.replace(request, heads=(32,), sizes=(128,)))
    assert [(s.length, s.heads, s.groups, s.size) for s, _ in chosen] == [
        (256, 32, 8, 128),
        (1024, 32, 8, 128),
    ]


SMALL_CASES = (
    check.Case(2, 1, 1, 2, 1, 24, 1, False),
    check.Case(1, 33, 50, 8, 4, 16, 2, True),
    check.Case(2, 41, 41, 6, 3, 8, 0, False),
)


def run_check(monkeypatch, capsys, *words):
    """Return the exit status, the lines of cases, and what is printed as an error."""
    monkeypatch.setattr(check, "CASES", SMALL_CASES)
    monkeypatch.setattr(sys, "argv", ["check", *words])
    status, printed = check.main(), capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if " after " not in line]
    return status, lines, printed.err


@pytest.mark.parametrize("name", ["xla", "augmented"])
def test_the_check_passes_what_is_right(monkeypatch, capsys, name):
    status, lines, _ = run_check(monkeypatch, capsys, name, "--dtype", "bfloat16")
    assert status == 0
    assert [line[:8] for line in lines] == ["ok: Case"] * 3


@pytest.mark.parametrize("result", ["out", "mass", "d_query", "d_key", "d_value"])
@pytest.mark.parametrize("head", [0, -1])
def test_the_check_finds_what_is_wrong(monkeypatch, capsys, result, head):
    right = check.value_and_gradient

    def wrong(name, *given):
        found = right(name, *given)
        if name == "xla" and result in found:
            at = (0, head) if result == "mass" else (0, 0, head)
            found[result] = found[result].at[at].add(1e-2)
        return found

    monkeypatch.setattr(check, "value_and_gradient", wrong)
    words = "xla", "--dtype", "float32", "--cases", "2"
    status, lines, _ = run_check(monkeypatch, capsys, *words)
    assert status == 1
    assert [line[:5] for line in lines] == ["WRONG"] * 2
    assert f"{result} " in lines[1]


def test_the_check_finds_what_differs_from_run_to_run(monkeypatch, capsys):
    right = check.compile_case

    def racing(case, args):
        programs, runs = right(case, args), iter([0.0, 1e-6] * len(SMALL_CASES))

        def actual(*given):
            found = programs.actual(*given)
            return found | {"out": found["out"] + next(runs)}

        return programs._replace(actual=actual)

    monkeypatch.setattr(check, "compile_case", racing)
    status, lines, _ = run_check(monkeypatch, capsys, "xla", "--dtype", "float32")
    assert status == 1
    assert all(line.startswith("DIFFERS FROM RUN TO RUN: Case(") for line in lines)
    status, lines, _ = run_check(monkeypatch, capsys, "augmented", "--dtype", "float32")
    assert status == 0  # as the backward of cuDNN may
    assert all("not bit-equal from run to run" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "why"),
    [("mosaic_tpu", "needs a TPU"), ("augmented_second", "augmented_second needs a GPU")],
)
def test_the_check_refuses_what_cannot_run_here(monkeypatch, capsys, name, why):
    status, _, error = run_check(monkeypatch, capsys, name)
    assert status == 2
    assert why in error


def test_the_check_passes_over_what_is_not_supported(monkeypatch, capsys):
    def only_one_position(name, spec):
        return None if spec.keys in (None, 1) else f"{name} takes one position"

    monkeypatch.setattr(check, "refusal", only_one_position)
    status, lines, _ = run_check(monkeypatch, capsys, "xla", "--dtype", "float32")
    assert status == 0
    assert sorted(line[:20] for line in lines) == [
        *["not supported: Case("] * 2,
        "ok: Case(b=2, q=1, k",
    ]
    monkeypatch.setattr(check, "refusal", lambda name, spec: spec.keys and "it takes nothing")
    status, _, error = run_check(monkeypatch, capsys, "xla", "--dtype", "float32")
    assert status == 2
    assert "xla supports none of the cases" in error


def test_the_cases_of_the_check():
    assert max(case.k for case in check.CASES) == 8192
    for case in check.CASES[:7]:
        shapes = [x if x is None else (x.shape, x.dtype) for x in check.zeros(case, "bfloat16")]
        given = check.make_inputs(case, "bfloat16")
        assert [x if x is None else (x.shape, x.dtype) for x in given] == shapes
        if case.w:
            assert len(np.unique(given[3].reshape(-1, case.w), axis=0)) <= check.SETS
            assert 0 < (np.asarray(given[3]) != 0).any(-1).mean() < 1 or case.q == 1
