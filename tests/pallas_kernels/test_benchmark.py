"""The benchmark measures what it says, and its yardstick is right."""

import dataclasses
import json
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from pallas_kernels.benchmark import __main__ as command
from pallas_kernels.benchmark import check
from pallas_kernels.benchmark.exact import exact_rows, relative_error, sample_rows
from pallas_kernels.benchmark.measure import compile_program, time_in_turn
from pallas_kernels.benchmark.shapes import Shape, make_case
from pallas_kernels.causal_mass_attention.reference import xla


@pytest.mark.parametrize("annotation", ["dense", "sparse"])
def test_exact_rows_are_those_of_the_definition(annotation):
    case = make_case(Shape(61, 6, 3, 5, annotation))

    def attend(query):
        return xla(query, case.key, case.value, case.q_bits, case.k_bits, None, 5**-0.5)

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
    shapes = list(command.chosen_shapes(command.complete(command.Args(out=None))))
    assert len(set(shapes)) == len(shapes) == 48
    assert {shape.length for shape in shapes} == {256, 1024, 4096, 8192, 32_768, 131_072}
    assert shapes[0].forward_flops == 2 * 256**2 * 64 * 32


def test_time_grows_with_the_work():
    def work(count):
        def function(x):
            return jax.lax.fori_loop(0, count, lambda _, y: y @ y / 100, x)

        return compile_program(function, [np.ones((100, 100), np.float32)])

    little, much = time_in_turn([work(5), work(500)], samples=5)
    assert little.low <= little.median <= little.high
    assert much.median > 10 * little.median


def test_the_command(tmp_path, monkeypatch):
    words = ["--lengths", "256", "--heads", "12", "--sizes", "64", "--samples", "2"]
    path = tmp_path / "benchmarks/cpu"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--out", str(path), *words])
    command.main()
    found = json.loads(path.with_suffix(".json").read_text())
    assert found["platform"] == "cpu"
    measured = [row for row in found["results"] if row["refusal"] is None]
    assert {row["shape"]["annotation"] for row in measured} == {"dense", "sparse"}
    for row in measured:
        assert all(error < 1e-5 for error in row["errors"].values())
        assert row["both"][0] > row["forward"][0] > 0
        without = row["candidate"] in ("stock attention", "torch sdpa")
        has_mass = not without and "no mass" not in row["candidate"]
        assert ("mass" in row["errors"]) == has_mass
        assert row["resident_bytes"] is None or 0 <= row["resident_bytes"] < 2**29
    names = {row["candidate"] for row in measured}
    assert {"stock attention", "xla", "xla_chunked", "xla_chunked, no mass"} <= names
    assert ("torch sdpa" in names) == (find_spec("torch") is not None)
    assert found["jax"] == jax.__version__
    page = path.with_suffix(".md").read_text()
    assert page.count("\n## ") == 2
    assert "| xla_chunked |" in page


def test_lengths_depend_on_the_machine():
    request = command.complete(command.Args(out=None))
    assert request.lengths == (256, 1024)
    assert request.dtype == "float32"
    shapes = list(command.chosen_shapes(dataclasses.replace(request, heads=(32,), sizes=(128,))))
    assert [(s.length, s.heads, s.groups, s.size) for s in shapes[::2]] == [
        (256, 32, 8, 128),
        (1024, 32, 8, 128),
    ]


def test_the_check_passes_what_is_right_and_finds_what_is_wrong(monkeypatch, capsys):
    words = ["check", "xla", "--dtype", "float32", "--cases", "2"]
    monkeypatch.setattr(sys, "argv", words)
    assert check.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == ["ok: Case"] * 2
    right = check.value_and_gradient

    def wrong(implementation, *given):
        found = right(implementation, *given)
        return found if implementation != "xla" else found | {"mass": found["mass"] + 1e-3}

    monkeypatch.setattr(check, "value_and_gradient", wrong)
    assert check.main() == 1
    assert "mass 10" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["check", "mosaic_tpu"])
    assert check.main() == 2
    assert "needs a TPU" in capsys.readouterr().err


def test_the_check_passes_over_what_is_not_supported(monkeypatch, capsys):
    def only_one_position(name, dtype, *, length=1, **_):
        return None if length == 1 else f"{name} takes one position"

    monkeypatch.setattr(check, "unsupported_reason", only_one_position)
    monkeypatch.setattr(sys, "argv", ["check", "xla", "--dtype", "float32"])
    assert check.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("not supported: Case(") for line in lines] == [False] + [True] * 8
    monkeypatch.setattr(check, "CASES", check.CASES[1:])
    assert check.main() == 2
    assert "xla supports none of the cases" in capsys.readouterr().err


def test_bits_of_the_check_are_shared_one_by_one():
    for case in check.CASES[:7]:
        q_bits, k_bits = check.make_inputs(case, "float32")[3:5]
        if case.w:
            both = np.asarray(q_bits)[:, -50:, None] & np.asarray(k_bits)[:, None, -50:]
            assert np.bitwise_count(both).sum(-1).max() <= 1
