"""Knock-outs and patching against torch with hooks, and against loops."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.analysis.heatmaps import Panel, layer_figure
from cat_jax.analysis.interventions import (
    KINDS,
    AnswerScores,
    MarkedExample,
    edges,
    knock_out,
    knock_out_heads,
    other_answers,
    patch_activations,
    paths_figure,
    paths_json,
    paths_markdown,
    trace_records,
    trace_spurious,
    twin_pairs,
)
from cat_jax.analysis.interventions.patching import Patching
from cat_jax.data.alignment import align_records
from cat_jax.data.bitset import decode
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.markdown import escape
from cat_jax.models import save_pretrained
from cat_jax.testing import ToyTask, toy_model, toy_records

N, H, C = 3, 4, 8
MODEL = toy_model(num_layers=N, num_heads=H, num_kv_heads=2, max_positions=600, seed=3)
TASK = ToyTask()
RECORDS = toy_records("ood", count=3)
ALTERNATIVES = ["7", "no", None]


def test_kinds_of_tokens():
    """A token for each character: "a=3 b=3 a is " and the answer."""
    (marked,) = trace_records(MODEL, TASK, RECORDS[:1]).right
    kinds = [KINDS[n][0] if n >= 0 else "-" for n in marked.kinds]
    assert "".join(kinds) == "ooco" + "sss" + "ooooo" + "aa" + "-"
    (rival,) = trace_records(MODEL, TASK, RECORDS[:1], ["no"]).rivals
    assert "".join(KINDS[n][0] for n in rival.kinds[:-1]) == "oocosssooooo" + "aaa"
    assert MODEL.tokenizer.decode(rival.example.tokens[13:15]) == "no"


def test_a_token_has_one_kind():
    """Causal goes before spurious, and what predicts the answer before both."""
    note = Annotation(Span("3", 8), (Span("b", 4),))
    both = Record("x_y b=3 ", "3", (note,))
    last = Record("x_y b=3", "3")
    marked = trace_records(MODEL, TASK, [both, last]).right
    kinds = ["".join(KINDS[n][0] for n in x.kinds[:-1]) for x in marked]
    assert kinds == ["oooocssaa", "oooossaa"]


@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=9),
    st.sampled_from(KINDS[:3]),
    st.sampled_from(["answer", "causal", "other", "all"]),
)
def test_edges_leave_a_run_of_tokens(prompt, keys, queries):
    kinds = np.array([*prompt, 3, 3, -1])
    length = len(kinds)
    zeros = np.zeros(length, np.int32)
    example = cat.Example(zeros, kinds == 3, zeros[:, None], zeros[:, None], zeros, zeros)
    found = edges(MarkedExample(example, kinds), keys, queries)
    mask = decode(found.q_bits, found.k_bits)
    for i, j in np.ndindex(length, length):
        is_one_run = len(set(kinds[j : i + 1])) == 1
        is_query = kinds[i] >= 0 and (queries == "all" or KINDS[kinds[i]] == queries)
        expected = j <= i and is_query and kinds[j] == KINDS.index(keys) and not is_one_run
        assert mask[i, j] == expected, (i, j)
    np.testing.assert_array_equal(found.causal_count, mask.sum(1))


@pytest.fixture(scope="module")
def in_torch(tmp_path_factory):
    """Logits of one sequence in torch while modules are hooked."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("toy") / "model"
    save_pretrained(folder, MODEL.model.config, MODEL.params, MODEL.tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    def logits(tokens, hooks=()):
        handles = []
        for path, is_before, hook in hooks:
            module = model.get_submodule(path)
            handles.append(
                module.register_forward_pre_hook(hook, with_kwargs=True)
                if is_before
                else module.register_forward_hook(hook)
            )
        with torch.no_grad():
            out = model(torch.tensor(tokens.astype(int))[None], use_cache=False).logits[0]
        for handle in handles:
            handle.remove()
        return torch.log_softmax(out, -1).numpy()

    return logits


def score(log, example):
    rows = [n for n in range(1, len(example.tokens)) if example.target_mask[n]]
    total = sum(log[n - 1, example.tokens[n]] for n in rows)
    return total, all(log[n - 1].argmax() == example.tokens[n] for n in rows)


def blocked(gate_NH, mask_TT):
    """Hooks that add the gate to the marked scores of each layer and head, as 4D masks."""
    torch = pytest.importorskip("torch")
    hooks, length = [], len(mask_TT)
    for n in range(N):
        bias = torch.zeros(1, H, length, length)
        for h in range(H):
            if gate_NH[n, h]:
                bias[0, h][torch.tensor(mask_TT)] = -torch.inf
        bias = bias.masked_fill(~torch.tril(torch.ones(length, length, dtype=torch.bool)), -1e30)

        def mask(module, args, options, bias=bias):
            return args, options | {"attention_mask": bias}

        hooks.append((f"model.layers.{n}.self_attn", True, mask))
    return hooks


@pytest.mark.parametrize(("keys", "queries"), [("spurious", "answer"), ("causal", "all")])
def test_knock_outs_are_masks_in_torch(in_torch, keys, queries):
    traced = trace_records(MODEL, TASK, RECORDS, ALTERNATIVES)
    found = knock_out(MODEL, traced, keys=keys, queries=queries, batch_size=2)
    gates = {"together": np.ones((N, H))}
    for n in range(N):
        gates[n] = np.zeros((N, H))
        gates[n][n] = 1
    for n, h in np.ndindex(N, H):
        gates[n, h] = np.zeros((N, H))
        gates[n, h][n, h] = 1
    ours = {"together": found.together}
    ours |= {n: found.by_layer[n] for n in range(N)}
    ours |= {(n, h): found.by_head[n, h] for n, h in np.ndindex(N, H)}
    for r, (right, rival) in enumerate(zip(traced.right, traced.rivals, strict=True)):
        before, is_right = score(in_torch(right.example.tokens), right.example)
        assert found.before.log_prob[r] == pytest.approx(before, abs=1e-4)
        assert found.before.is_right[r] == is_right
        for name, gate in gates.items():
            totals = []
            for marked in (right, rival):
                if marked is not None:
                    example = edges(marked, keys, queries)
                    mask = decode(example.q_bits, example.k_bits)
                    log = in_torch(example.tokens, blocked(gate, mask))
                    totals.append(score(log, example))
            assert ours[name].log_prob[r] == pytest.approx(totals[0][0], abs=1e-4), name
            assert ours[name].is_right[r] == totals[0][1]
            if rival is None:
                assert np.isnan(ours[name].difference[r])
            else:
                difference = totals[0][0] - totals[1][0]
                assert ours[name].difference[r] == pytest.approx(difference, abs=1e-4)
    changes = found.effect(found.by_head)
    assert changes.shape == (N, H, len(RECORDS))
    assert np.abs(changes).max() > 1e-3


def test_chosen_heads_are_knocked_out_together():
    traced = trace_records(MODEL, TASK, RECORDS, ALTERNATIVES)
    every = [*np.ndindex(N, H)]
    chosen = {"none": [], "one": [(1, 2)], "layer": [(0, h) for h in range(H)], "all": every}
    found = knock_out_heads(MODEL, traced, chosen, keys="spurious", batch_size=2)
    expected = knock_out(MODEL, traced, batch_size=2)
    assert list(found) == list(chosen)
    for name, scores in {
        "none": expected.before,
        "one": expected.by_head[1, 2],
        "layer": expected.by_layer[0],
        "all": expected.together,
    }.items():
        np.testing.assert_allclose(found[name].log_prob, scores.log_prob, atol=1e-5)
        np.testing.assert_array_equal(found[name].is_right, scores.is_right)
    with pytest.raises(InputError, match=rf"'x' names layer 0, head {H}; there are layers 0 to"):
        knock_out_heads(MODEL, traced, {"x": [(0, H)]})
    with pytest.raises(InputError, match="no heads are chosen"):
        knock_out_heads(MODEL, traced, {})


def test_without_a_task_nothing_is_spurious():
    with_task, without = (trace_records(MODEL, x, RECORDS) for x in (TASK, None))
    for one, other in zip(with_task.right, without.right, strict=True):
        spurious = one.kinds == KINDS.index("spurious")
        assert spurious.any()
        expected = np.where(spurious, KINDS.index("other"), one.kinds)
        np.testing.assert_array_equal(other.kinds, expected)


def test_what_nothing_else_reads_changes_no_answer():
    pairs = twin_pairs(MODEL, TASK, RECORDS, seed=1)
    found = [knock_out(MODEL, x, queries="all") for x in (pairs.clean, pairs.corrupted)]
    before, after = ([getattr(x, name).log_prob for x in found] for name in ("before", "together"))
    assert np.abs(before[0] - before[1]).max() > 1e-4
    np.testing.assert_allclose(after[0], after[1], atol=1e-5)


def test_shares_of_answers():
    def scores(*rights):
        values = np.array(rights, bool)
        return AnswerScores(values * 1.0, np.full(values.shape, np.nan), values)

    before, after = scores(1, 1, 0, 0, 1), scores(0, 1, 1, 0, 0)
    found = cat.analysis.interventions.KnockOut(
        "spurious", "answer", np.ones(5), before, after, after, after
    )
    assert found.lost(after) == 0.4
    assert found.gained(after) == 0.2
    assert found.effect(after).tolist() == [-1, 0, 1, 0, -1]


@pytest.mark.parametrize("site", ["residual", "heads"])
def test_patches_are_hooks_in_torch(in_torch, site):
    torch = pytest.importorskip("torch")
    pairs = twin_pairs(MODEL, TASK, RECORDS, alternatives=ALTERNATIVES, seed=1)
    assert pairs.left_out == 0
    positions = ("answer", "spurious")
    found = patch_activations(MODEL, pairs, site, positions=positions, batch_size=2)
    columns = len(positions) if site == "residual" else H
    assert found.patched.log_prob.shape == (N, columns, len(RECORDS))
    path = "model.layers.{}" if site == "residual" else "model.layers.{}.self_attn.o_proj"
    is_before = site == "heads"
    stream = {}

    def keep(n):
        def hook(module, args, rest):
            stream[n] = (args[0] if is_before else rest).clone()

        return hook

    def put(n, where, head):
        def mix(old):
            width = old.shape[-1]
            chosen = torch.zeros(width, dtype=torch.bool)
            chosen[slice(None) if head is None else slice(head * C, head * C + C)] = True
            return torch.where(torch.tensor(where)[:, None] & chosen, stream[n], old)

        if is_before:
            return lambda module, args, options: ((mix(args[0]),), options)
        return lambda module, args, out: mix(out)

    for r in range(len(RECORDS)):
        sides = zip(
            (pairs.clean.right[r], pairs.clean.rivals[r]),
            (pairs.corrupted.right[r], pairs.corrupted.rivals[r]),
            strict=True,
        )
        totals = []
        for clean, corrupted in sides:
            if clean is None:
                continue
            hooks = [(path.format(n), is_before, keep(n)) for n in range(N)]
            before = score(in_torch(clean.example.tokens, hooks), clean.example)[0]
            after = score(in_torch(corrupted.example.tokens), corrupted.example)[0]
            patched = np.zeros((N, columns))
            for n, x in np.ndindex(N, columns):
                chosen = positions[x : x + 1] if site == "residual" else positions
                where = np.isin(corrupted.kinds, [KINDS.index(kind) for kind in chosen])
                hook = put(n, where, None if site == "residual" else x)
                log = in_torch(corrupted.example.tokens, [(path.format(n), is_before, hook)])
                patched[n, x] = score(log, corrupted.example)[0]
            totals.append((before, after, patched))
        assert found.clean.log_prob[r] == pytest.approx(totals[0][0], abs=1e-4)
        assert found.corrupted.log_prob[r] == pytest.approx(totals[0][1], abs=1e-4)
        np.testing.assert_allclose(found.patched.log_prob[..., r], totals[0][2], atol=1e-4)
        if len(totals) == 2:
            difference = totals[0][2] - totals[1][2]
            np.testing.assert_allclose(found.patched.difference[..., r], difference, atol=1e-4)
    if site == "residual":  # after the last layer the answer's position has everything
        np.testing.assert_allclose(found.restored[-1], [1, 0], atol=1e-3)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_shares_that_come_back(seed):
    rng = np.random.default_rng(seed)
    clean, corrupted = rng.integers(-1, 2, (2, 5)).astype(float)
    patched = rng.normal(size=(2, 3, 5))

    def scores(values):
        return AnswerScores(0 * values, values, values > 0)

    found = Patching("residual", ("a", "b", "c"), *map(scores, (clean, corrupted, patched)))
    for n, x, r in np.ndindex(2, 3, 5):
        whole = clean[r] - corrupted[r]
        expected = (patched[n, x, r] - corrupted[r]) / whole if whole else np.nan
        assert found.normalized[n, x, r] == pytest.approx(expected, nan_ok=True)
    whole = clean.sum() - corrupted.sum()
    expected = (patched.sum(-1) - corrupted.sum()) / whole if whole else np.full((2, 3), np.nan)
    np.testing.assert_allclose(found.restored, expected)


class LongerTwins(ToyTask):
    """Some twins have more tokens, one is the same, and all have another answer."""

    @property
    def interventions(self):
        def longer(record, rng):
            more = "1" if record.input[2] != RECORDS[1].input[2] else ""
            return dataclasses.replace(record, input=f"{record.input[:6]}{more}9 a is ", target="x")

        return {"spurious": longer}


def test_pairs_of_other_lengths_are_left_out():
    records = [dataclasses.replace(record, important=()) for record in RECORDS]
    kept = [n for n, record in enumerate(records) if record.input[2] == RECORDS[1].input[2]]
    pairs = twin_pairs(MODEL, LongerTwins(), records)
    assert pairs.left_out == len(records) - len(kept) > 0
    (rival,) = pairs.clean.rivals[:1]
    assert MODEL.tokenizer.decode(rival.example.tokens[-2:-1]) == "x"  # the twin's own answer
    expected = [align_records([records[n]], MODEL.tokenizer, max_length=99)[0][0] for n in kept]
    for example, right in zip(expected, pairs.clean.right, strict=True):
        np.testing.assert_array_equal(example.tokens, right.example.tokens)
    with pytest.raises(InputError, match="no twin by 'spurious' has the tokens of its record"):
        twin_pairs(MODEL, LongerTwins(), [x for n, x in enumerate(records) if n not in kept])


def test_the_other_of_two_answers():
    def records(*targets):
        return [Record("x ", target) for target in targets]

    assert other_answers(records("a", "b", "a")) == ["b", "a", "b"]
    assert other_answers(records("a", "b", "c")) == [None] * 3
    assert other_answers(records("a")) == [None]


def test_a_trace_as_json_page_and_figure():
    paths = trace_spurious(
        MODEL, TASK, RECORDS, alternatives=["7", None, "8"], seed=1, batch_size=3
    )
    values = json.loads(json.dumps(paths_json(paths), allow_nan=False))
    assert values["records"] == 3
    assert np.shape(values["knock_outs"][0]["by_head"]["change"]) == (N, H)
    assert np.shape(values["patching"]["residual"]["restored"]) == (N, len(KINDS))
    first = values["knock_outs"][0]
    low, high = first["together"]["interval"]
    assert low <= first["together"]["change"] <= high
    found = paths.knock_outs["spurious", "answer"]
    assert first["together"]["change"] == pytest.approx(found.effect(found.together).mean())
    page = paths_markdown(paths, "A trace")
    assert page.startswith("# A trace\n\n3 records")
    assert "| spurious → answer | 100% |" in page
    figure = paths_figure(paths)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert "spurious → answer knocked out" in titles
    maps = np.asarray(cat.attention_maps(MODEL.model, MODEL.params, np.stack(
        [x.example.tokens for x in trace_records(MODEL, TASK, RECORDS).right])))  # fmt: skip
    on_spurious = maps[:, :, :, 12:14, 4:7].sum(-1).mean((1, 3))
    np.testing.assert_allclose(paths.mass["spurious"].by_head_NH, on_spurious, atol=1e-5)


def test_a_trace_in_less_detail():
    options = {"alternatives": ["7", None, "8"], "seed": 1, "batch_size": 3}
    every = trace_spurious(MODEL, TASK, RECORDS, **options)
    layers = trace_spurious(MODEL, TASK, RECORDS, detail="layers", **options)
    whole = trace_spurious(MODEL, TASK, RECORDS, detail="whole", **options)
    assert every.residual is not None
    for paths in (every, layers, whole):
        np.testing.assert_allclose(paths.clean.log_prob, every.residual.clean.log_prob, atol=1e-5)
        corrupted = every.residual.corrupted
        np.testing.assert_allclose(paths.corrupted.log_prob, corrupted.log_prob, atol=1e-5)
        for path, found in paths.knock_outs.items():
            expected = every.knock_outs[path]
            np.testing.assert_allclose(
                found.together.log_prob, expected.together.log_prob, atol=1e-5
            )
            if paths is layers:
                np.testing.assert_allclose(
                    found.by_layer.log_prob, expected.by_layer.log_prob, atol=1e-5
                )
    assert layers.residual is not None
    np.testing.assert_allclose(layers.residual.restored, every.residual.restored, atol=1e-4)
    assert layers.heads is whole.heads is whole.residual is None
    values = json.loads(json.dumps(paths_json(whole), allow_nan=False))
    assert values["knock_outs"][0]["by_layer"] == []
    assert values["patching"]["residual"] is None
    page = paths_markdown(layers, "A trace")
    assert "one layer alone" in page
    assert "layer.head:" not in page
    page = paths_markdown(whole, "A trace")
    assert "one layer alone" not in page
    assert "stream" not in page
    titles = [axis.get_title(loc="left") for axis in paths_figure(layers).axes]
    assert titles[:2] == ["knocked out", "residual stream patched"]
    with pytest.raises(InputError, match="trace with the detail layers or heads"):
        paths_figure(whole)
    with pytest.raises(InputError, match="detail must be one of whole, layers, heads, not 'all'"):
        trace_spurious(MODEL, TASK, RECORDS, detail="all", **options)


def test_a_figure_of_layers():
    values = np.array([[0.5, -2.0, np.nan], [0.0, -0.001, 1.0]])
    figure = layer_figure({"a": Panel(values, unit="u"), "b": Panel(-values[:, :2], ("p", "q"))})
    first, second, *_ = figure.axes
    assert [text.get_text() for text in first.texts] == ["0.50", "-2.00", "0.00", "0.00", "1.00"]
    assert first.images[0].norm.vmax == 2
    assert [label.get_text() for label in second.get_xticklabels()] == ["p", "q"]
    for panels, says in (
        ({}, "no panel"),
        ({"a": Panel(np.zeros(3))}, r"shape \(3,\)"),
        ({"a": Panel(values, ("p",))}, "names 1 columns of 3"),
    ):
        with pytest.raises(InputError, match=says):
            layer_figure(panels)


def test_bad_input_is_a_sentence():
    traced = trace_records(MODEL, TASK, RECORDS)
    with pytest.raises(InputError, match="keys must be a kind of tokens: did you mean spurious"):
        knock_out(MODEL, traced, keys="spurios")
    with pytest.raises(InputError, match="no intervention 'causal'"):
        twin_pairs(MODEL, TASK, RECORDS, intervention="causal")
    with pytest.raises(InputError, match="site must be one of residual, heads"):
        patch_activations(MODEL, twin_pairs(MODEL, TASK, RECORDS), "mlp")
    with pytest.raises(InputError, match="there are no records to trace"):
        trace_records(MODEL, TASK, [])
    turns = (Message("user", "hi"), Message("assistant", "ho"))
    with pytest.raises(InputError, match="record 2 is a conversation"):
        trace_records(MODEL, TASK, [RECORDS[0], Conversation(turns)])
    short = toy_model(max_positions=9)
    with pytest.raises(InputError, match="record 1 has 15 tokens, and the model reads 9"):
        trace_records(short, TASK, RECORDS)
    bare = [dataclasses.replace(record, important=()) for record in RECORDS]
    with pytest.raises(InputError, match="no record is annotated"):
        trace_spurious(MODEL, TASK, bare)


def test_the_command_writes_what_it_found(tmp_path, run_command):
    model = toy_model(max_positions=600)
    save_pretrained(tmp_path / "toy", model.model.config, model.params, model.tokenizer)
    run = partial(run_command, "interventions", tmp_path / "toy")
    out = tmp_path / "found"
    status, printed, _ = run("--task", "stg", "--records", 2, "--batch-size", 2, "--out", out)
    assert status == 0
    page = out.with_suffix(".md").read_text()
    title = escape(f"{tmp_path / 'toy'}: stg, iid")
    assert printed.startswith(f"# {title}\n")
    assert page.startswith(printed)
    assert page.endswith("(found.png)\n")
    values = json.loads(out.with_suffix(".json").read_text())
    assert values["settings"]["records"] == values["records"] == 2
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert values["settings"]["task"]["task"] == "stg"
    world = ("--task", "scm", "--scm.causes", 2, "--scm.twins", 1, "--records", 2)
    out = tmp_path / "world"
    assert run(*world, "--detail", "whole", "--out", out)[0] == 0
    assert not out.with_suffix(".png").exists()
    assert "](" not in out.with_suffix(".md").read_text()
    values = json.loads(out.with_suffix(".json").read_text())
    assert values["settings"]["task"]["causes"] == 2
    for words, message in (
        (("scm", "--scm.causes", 0), "causes must be"),
        (("stgg",), "did you mean stg?"),
    ):
        status, _, errors = run("--task", *words)
        assert status == 2
        assert message in errors
