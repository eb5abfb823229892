"""Causes that a model itself proposes, against transformers and finite differences."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import cat_jax as cat
from cat_jax.analysis.proposals import (
    OtherRecords,
    Proposal,
    as_annotation,
    causes_auroc,
    causes_ranked_first,
    number_spans,
    other_number,
    propose_causes,
    word_spans,
)
from cat_jax.data.alignment import align_records
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.likelihood import answer_log_probabilities
from cat_jax.models import save_pretrained

ROOT = Path(__file__).resolve().parents[2]
MODEL = cat.testing.toy_model(max_positions=512)
RECORDS = [
    Record("a 3 b 12, c 7: ", "High"),
    Record("a 41: ", "Low risk"),
    Record("no number: ", "Low"),
]


def examples(records, model=MODEL):
    return align_records(records, model.tokenizer, max_length=512)[0]


def log_probability(record, model=MODEL):
    """Token by token, out of all logits."""
    (example,) = examples([record], model)
    logits, _ = model.model.apply({"params": model.params}, example.tokens[None])
    log = np.asarray(jax.nn.log_softmax(logits[0]))
    rows = [n for n in range(1, len(example.tokens)) if example.target_mask[n]]
    return sum(log[n - 1, example.tokens[n]] for n in rows)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_log_probabilities_are_those_of_all_logits(batch_size):
    found = answer_log_probabilities(
        MODEL.model, MODEL.params, examples(RECORDS), batch_size=batch_size
    )
    assert found == pytest.approx([log_probability(record) for record in RECORDS], abs=1e-5)


def test_log_probabilities_are_those_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    save_pretrained(tmp_path / "toy", MODEL.model.config, MODEL.params, MODEL.tokenizer)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "toy", dtype=torch.float32
    )
    for record, example in zip(RECORDS, examples(RECORDS), strict=True):
        ids = torch.tensor(example.tokens.astype(int))[None]
        labels = torch.where(torch.tensor(example.target_mask)[None], ids, -100)
        loss = reference(ids, labels=labels).loss.item()
        (found,) = answer_log_probabilities(MODEL.model, MODEL.params, [example])
        assert found == pytest.approx(-loss * example.target_mask.sum(), rel=1e-4), record


def test_removal_is_the_fall_of_the_log_probability():
    ranked = propose_causes(MODEL, RECORDS, by="removal", batch_size=3)
    assert [len(x) for x in ranked] == [3, 1, 0]
    before = log_probability(RECORDS[0])
    after = {"3": "a b 12, c 7: ", "12": "a 3 b , c 7: ", "7": "a 3 b 12, c : "}
    effects = {x.span.text: x.effect for x in ranked[0]}
    for words, prompt in after.items():
        fall = before - log_probability(Record(prompt, "High"))
        assert effects[words] == pytest.approx(fall, abs=1e-4)
    assert [x.effect for x in ranked[0]] == sorted(effects.values(), key=abs, reverse=True)
    assert min(effects.values()) < 0  # or the order of sizes would be that of values
    assert np.isnan(ranked[0][0].low)
    assert {(x.by, x.draws) for x in ranked[0]} == {("removal", 1)}


def test_replacement_has_the_mean_and_the_interval_of_its_draws():
    drawn = []

    def draw(*words):
        drawn.append(other_number(*words))
        return drawn[-1]

    (proposals, *_) = propose_causes(MODEL, RECORDS, draw=draw, samples=4, seed=3)
    before = log_probability(RECORDS[0])
    for place, (words, prompt) in enumerate(
        [("3", "a {} b 12, c 7: "), ("12", "a 3 b {}, c 7: "), ("7", "a 3 b 12, c {}: ")]
    ):
        falls = [
            before - log_probability(Record(prompt.format(x), "High"))
            for x in drawn[4 * place : 4 * place + 4]
        ]
        (found,) = [x for x in proposals if x.span.text == words]
        assert found.effect == pytest.approx(np.mean(falls), abs=1e-4)
        low, high = stats.t.interval(0.95, 3, np.mean(falls), stats.sem(falls))
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert {(x.by, x.draws) for x in proposals} == {("replacement", 4)}
    again = propose_causes(MODEL, RECORDS, samples=4, seed=3)
    assert again[0] == proposals


def test_gradient_is_the_slope_by_the_scale_of_an_embedding():
    """A span of one token that stands once: scaling the token's row is scaling its embedding."""
    model = cat.testing.toy_model(max_positions=512, tie_embeddings=False)
    record = Record("a 3 b: ", "High")
    ((proposal,),) = propose_causes(model, [record], by="gradient")
    (example,) = examples([record], model)
    (at,) = [
        n
        for n, token in enumerate(example.tokens.tolist())
        if model.tokenizer.decode([token]).strip() == "3"
    ]
    row = example.tokens[at]
    assert (example.tokens == row).sum() == 1

    def scaled(scale):
        params = jax.tree.map(lambda x: x, model.params)
        table = params["embed"]["embedding"]
        params["embed"]["embedding"] = table.at[row].multiply(scale)
        changed = type(model)(model.model, params, model.tokenizer)
        return float(log_probability(record, changed))

    slope = (scaled(1.05) - scaled(0.95)) / 0.1
    assert proposal.effect == pytest.approx(abs(slope), rel=2e-2)


def test_attention_is_that_of_the_maps():
    record = RECORDS[0]
    (proposals, *_) = propose_causes(MODEL, [record], by="attention")
    (example,) = examples([record])
    maps = np.asarray(cat.attention_maps(MODEL.model, MODEL.params, example.tokens[None]))[:, 0]
    for proposal in proposals:
        start = proposal.span.start
        note = Annotation(Span("High", len(record.input)), (Span(proposal.span.text, start),))
        (marked,) = examples([Record(record.input, record.target, (note,))])
        queries, keys = marked.q_bits.any(-1), marked.k_bits.any(-1)
        assert keys.any()
        share = maps[:, :, queries][..., keys].sum(-1).mean()
        assert proposal.effect == pytest.approx(share, abs=1e-5)


def test_what_is_ranked():
    record = Record("Tom's 1,200 pens cost 3.50 or -2: ", "x")
    assert [x.text for x in number_spans(record)] == ["1,200", "3.50", "2"]
    assert [x.text for x in word_spans(record)][:3] == ["Tom's", "1", "200"]
    for spans in (number_spans, word_spans):
        assert all(record.input.startswith(x.text, x.start) for x in spans(record))


@given(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_other_numbers(value, digits, seed):
    text = f"{value / 10**digits:.{digits}f}"
    drawn = other_number(Record(text, "x"), Span(text, 0), np.random.default_rng(seed))
    assert float(drawn) != float(text)
    assert 0 <= float(drawn) <= max(10, round(2 * float(text)))
    assert len(drawn.partition(".")[2]) == digits


def test_words_are_not_replaced_by_numbers():
    with pytest.raises(InputError, match="'a' is no number; give a function"):
        propose_causes(MODEL, RECORDS[:1], spans=word_spans)
    ranked = propose_causes(
        MODEL, RECORDS[:1], spans=word_spans, draw=lambda record, span, rng: "b", samples=2
    )
    assert len(ranked[0]) == 6


def proposal(text, start, effect):
    return Proposal(Span(text, start), effect, "removal")


def test_a_draft_is_made_only_when_told():
    ranked = [proposal("7", 12, 3.0), proposal("3", 2, 2.0), proposal("12", 6, 1.0)]
    draft = as_annotation(RECORDS[0], ranked, top=2)
    assert draft.important == (Annotation(Span("High", 15), (Span("3", 2), Span("7", 12))),)
    assert as_annotation(RECORDS[2], [], top=2).important == ()


def test_causes_ranked_first():
    note = Annotation(Span("High", 15), (Span("b 12", 4), Span("7", 12)))
    record = Record("a 3 b 12, c 7: ", "High", (note,))
    three, twelve, seven = proposal("3", 2, 1), proposal("12", 6, 1), proposal("7", 12, 1)
    orders = [[twelve, seven, three], [three, seven, twelve], [three, twelve, seven]]
    assert [causes_ranked_first([record], [order]) for order in orders] == [1, 0.5, 0.5]
    assert np.isnan(causes_ranked_first([RECORDS[0]], [orders[0]]))


@given(st.lists(st.integers(-3, 3), min_size=3, max_size=3), st.sets(st.integers(0, 2)))
def test_auroc_is_the_share_of_pairs_in_order(effects, causes):
    places = [("3", 2), ("12", 6), ("7", 12)]
    spans = tuple(Span(*places[n]) for n in sorted(causes))
    notes = (Annotation(Span("High", 15), spans),) if spans else ()
    record = Record("a 3 b 12, c 7: ", "High", notes)
    ranked = [proposal(*place, effect) for place, effect in zip(places, effects, strict=True)]
    pairs = [
        (abs(effects[n]) > abs(effects[m])) + 0.5 * (abs(effects[n]) == abs(effects[m]))
        for n, m in itertools.product(range(3), repeat=2)
        if n in causes and m not in causes
    ]
    expected = np.mean(pairs) if pairs else np.nan
    assert causes_auroc([record], [ranked]) == pytest.approx(expected, nan_ok=True)


def test_words_of_other_records_stand_at_the_same_place():
    texts = ["Ann has a red pen", "Bob has a red car", "Ann has a blue pen"]
    records = [Record(f"{text}: ", "High") for text in texts]
    others = OtherRecords(records)
    assert [x.text for x in others.spans(records[0])] == ["Ann", "red", "pen"]
    rng = np.random.default_rng(0)
    for span, words in zip(others.spans(records[0]), ["Bob", "blue", "car"], strict=True):
        assert {others.draw(records[0], span, rng) for _ in range(5)} == {words}
    with pytest.raises(InputError, match="other words in place of 'has'"):
        others.draw(records[0], Span("has", 4), rng)
    ranked = propose_causes(MODEL, records, spans=others.spans, draw=others.draw, samples=2)
    (red,) = [x for x in ranked[0] if x.span.text == "red"]
    changed = Record("Ann has a blue pen: ", "High")
    fall = log_probability(records[0]) - log_probability(changed)
    assert red.effect == pytest.approx(fall, abs=1e-4)


@pytest.mark.parametrize("by", ["replacement", "removal", "gradient", "attention"])
def test_nothing_to_rank(by):
    assert propose_causes(MODEL, [], by=by) == []
    assert propose_causes(MODEL, [RECORDS[2]] * 2, by=by) == [[], []]


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"by": "erasure"}, "by must be one of replacement, removal, gradient, attention"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"spans": lambda record: [Span("3")]}, "'3' has no 'start'"),
        ({"spans": lambda record: [Span("7", 2)]}, "'7' is not at character 2"),
    ],
)
def test_bad_settings(given_, says):
    with pytest.raises(InputError) as error:
        propose_causes(MODEL, RECORDS[:1], **given_)
    assert says in str(error.value)


def test_too_long_for_the_model():
    with pytest.raises(InputError, match="longer than the 512 positions"):
        propose_causes(MODEL, [Record("a 3 " * 400, "x")])


@pytest.mark.slow
def test_the_commands(tmp_path, run_command):
    run = tmp_path / "runs/seed-0/toy"
    save_pretrained(run, MODEL.model.config, MODEL.params, MODEL.tokenizer)
    note = Annotation(Span("High", 15), (Span("7", 12),))
    cat.write_records(tmp_path / "a.jsonl", [Record("a 3 b 12, c 7: ", "High", (note,))])

    def command(name, *words):
        status, *said = run_command(name, *words)
        return status, "".join(said)

    given_ = tmp_path / "a.jsonl", "--model", run, "--out", tmp_path / "o.jsonl"
    status, text = command("propose_causes", *given_, "--top", 2)
    assert status == 0, text
    assert "annotated causes among the first" in text
    (line,) = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert len(line["proposals"]) == 3
    assert line["proposals"][0]["interval"][0] < line["proposals"][0]["interval"][1]
    (read,) = cat.read_records(tmp_path / "o.jsonl")
    assert len(read.important[0].causes) == 2
    status, text = command("propose_causes", *given_, "--spans", "words")
    assert (status, text.count("1 records are ranked")) == (0, 1)  # no other record, no words
    out = tmp_path / "b"
    status, text = command("benchmark_proposals", tmp_path / "runs", out, "--records", 3)
    assert status == 0, text
    found = json.loads(out.with_suffix(".json").read_text())["scores"]
    assert set(found["toy"]) == {"replacement", "removal", "gradient", "attention", "random"}
    assert command("benchmark_proposals", tmp_path, out)[0] == 2
    status, text = command("benchmark_agreement", tmp_path / "runs", out, "--records", 3)
    assert status == 0, text
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["records"] == 3
    assert len(found["scores"]["toy"]) == 6
    assert "replacement, attention" in out.with_suffix(".md").read_text()
