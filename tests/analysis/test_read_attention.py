"""Rows of maps against full maps, and views against numpy, at odd sizes."""

import base64
import dataclasses
import html
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.analysis import attention_maps, attention_rows, read_attention
from cat_jax.analysis.attention.text import read_text
from cat_jax.data.alignment import align_records
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.causal_mass import measure_causal_mass
from cat_jax.models import CausalLM, ModelConfig, attention_edits

CONFIG = ModelConfig(37, 30, 29, 3, 6, 2, 8, qk_norm=True)
B, T, R = 2, 13, 4
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 37, (B, T))
SEGMENTS = np.sort(RNG.integers(0, 3, (B, T), np.int32), axis=1)
QUERIES = np.array([[0, 5, 6, 12], [3, 3, 11, 7]])
BITS = RNG.integers(0, 8, (2, B, T, 1), np.uint32)
GATE = np.where(RNG.random((3, 6)) < 0.4, -np.inf, RNG.normal(size=(3, 6))).astype(np.float32)


def parameters(config):
    shapes = jax.eval_shape(CausalLM(config).init, jax.random.key(0), TOKENS)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(1)
    return tree.unflatten([jnp.asarray(0.4 * rng.normal(size=x.shape), "float32") for x in leaves])


PARAMS = parameters(CONFIG)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("segments", [None, SEGMENTS])
@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
def test_rows_are_those_of_the_maps(attention, segments, edited):
    edits = attention_edits(GATE, *BITS) if edited else None
    given = {"segment_ids": segments, "interventions": edits}
    maps = np.asarray(attention_maps(CausalLM(CONFIG), PARAMS, TOKENS, **given))
    model = CausalLM(dataclasses.replace(CONFIG, attention=attention))
    rows = np.asarray(attention_rows(model, PARAMS, TOKENS, QUERIES, **given))
    expected = np.stack([maps[:, b][:, :, QUERIES[b]] for b in range(B)], axis=1)
    assert rows.shape == (3, B, 6, R, T)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert expected.std(axis=(1, 3)).max() > 0.1
    if edited:
        plain = attention_maps(CausalLM(CONFIG), PARAMS, TOKENS, segment_ids=segments)
        assert abs(maps - plain).max() > 0.1


def test_rows_never_build_a_map():
    """No array of the program is as large as one map: T x T of one head."""
    length = 2048
    model = CausalLM(dataclasses.replace(CONFIG, attention="xla_chunked", max_positions=length))
    tokens = np.zeros((1, length), np.int32)

    def program(rows):
        return jax.make_jaxpr(lambda tokens: attention_rows(model, PARAMS, tokens, rows))(tokens)

    shapes = re.findall(r"(?:f32|bool|i32|u32)\[([\d,]+)\]", str(program(np.array([[5, 2000]]))))
    largest = max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes)
    assert largest < length * length


def test_untapped_programs_are_the_same():
    model = CausalLM(CONFIG)

    def lowered(mutable):
        def run(params, tokens):
            return model.apply({"params": params}, tokens, mutable=mutable)

        return jax.jit(run).lower(PARAMS, TOKENS).as_text()

    assert lowered(["attention_rows"]) == lowered(["no such tap"])


def test_rows_that_cannot_be_read_are_refused():
    model = CausalLM(CONFIG)
    with pytest.raises(InputError, match="positions from 0 to 12, got 0 to 13"):
        attention_rows(model, PARAMS, TOKENS, np.array([[0], [13]]))
    with pytest.raises(InputError, match=r"positions \[2, R\].*got shape \(2, 0\)"):
        attention_rows(model, PARAMS, TOKENS, np.zeros((2, 0), int))
    exact = 4 * 3 * 6 * B * T * R
    attention_rows(model, PARAMS, TOKENS, QUERIES, limit_bytes=exact)
    with pytest.raises(InputError, match=r"4 queries of tokens \[2, 13\] .*: 3 fit"):
        attention_rows(model, PARAMS, TOKENS, QUERIES, limit_bytes=exact - 1)


TOY = cat.testing.toy_model(num_layers=3, num_heads=4, num_kv_heads=2)
RECORD = Record(
    "a=3 b=4 <i>3</i> is ",
    "3",
    (Annotation(Span("3", 20), (Span("a=3"),)),),
)
TOKEN_COUNT = len(RECORD.text) + 1


def read(text=RECORD, **options):
    return read_attention(TOY.model, TOY.params, TOY.tokenizer, text, **options)


def test_a_record_is_read_as_training_reads_it():
    maps = read(spurious=["b=4"])
    assert maps.tokens == (*RECORD.text, "<end>")
    (example,), _ = align_records([RECORD], TOY.tokenizer, max_length=99)
    expected = attention_maps(TOY.model, TOY.params, jnp.array([example.tokens]))
    np.testing.assert_array_equal(maps.values, expected[:, 0])
    kinds = ["other"] * TOKEN_COUNT
    kinds[0:3], kinds[4:7], kinds[20] = ["cause"] * 3, ["spurious"] * 3, "effect"
    assert maps.kinds == tuple(kinds)
    mass = measure_causal_mass(TOY.model, TOY.params, [example])
    np.testing.assert_allclose(maps.between().values, mass.by_head_NH, atol=1e-6)


def test_spaces_of_a_target_are_no_answer():
    record = Record("a=3 is", " 3", (Annotation(Span("3", 7), (Span("3", 2),)),))
    (example,), _ = align_records([record], TOY.tokenizer, max_length=99)
    mass = measure_causal_mass(TOY.model, TOY.params, [example])
    np.testing.assert_allclose(read(record).between(), mass.by_head_NH, atol=1e-6)


def test_words_are_queries_one_before_and_keys_where_they_stand():
    maps = read("a=3 b=4 c=53 is")
    values = maps.values
    found = maps.between("53", "is")
    assert found.axes == ("layers", "heads")
    expected = values[:, :, [12, 13]][..., [10, 11]].sum(-1).mean(-1)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    mixed = maps.between([Span("=", 9), 2, -15], [7, "b=4"]).values
    expected = values[:, :, [3, 4, 5, 7]][..., [0, 2, 9]].sum(-1).mean(-1)
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    assert maps.positions("b=4") == [4, 5, 6]
    one = maps.layer(-1).head(2).between("53", "is")
    assert one.axes == ()
    np.testing.assert_allclose(one.values, found.values[2, 2], atol=1e-6)


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_positions_are_whole_numbers_of_any_library(array):
    maps = read("a=3 b=4 c=53 is")
    expected = maps.between([1, 3], 8).values
    np.testing.assert_array_equal(maps.between(array([1, 3]), array(8)).values, expected)
    chosen = read("a=3 b=4 c=53 is", queries=array([8])).between([1, 3], 8)
    np.testing.assert_allclose(chosen, expected, atol=1e-6)


def test_spurious_words_may_be_one_or_positions():
    expected = read(spurious=["b=4"]).kinds
    assert expected.count("spurious") == 3
    for one in ("b=4", Span("b=4"), [4, 5, 6], range(4, 7)):
        assert read(spurious=one).kinds == expected


def test_chosen_queries_are_rows_of_all():
    whole, chosen = read(), read(queries=[0, "3", -1])
    assert chosen.queries.tolist() == [0, 1, 10, 19, 21]
    np.testing.assert_allclose(chosen.values, whole.values[:, :, chosen.queries], atol=1e-5)
    np.testing.assert_allclose(chosen.between(), whole.between(), atol=1e-6)
    assert chosen.of_queries("3").queries.tolist() == [1, 10, 19]
    with pytest.raises(InputError, match="query 5 was not read"):
        chosen.between(0, [0, 5])


@settings(max_examples=25, deadline=None)
@given(st.permutations(["layers", "heads", "queries", "keys"]), st.integers(1, 4))
def test_means_are_those_of_numpy(axes, count):
    maps = read("a=3 b=4")
    given_axes = axes[:count]
    found = maps.mean(*given_axes)
    places = tuple(maps.axes.index(axis) for axis in given_axes)
    np.testing.assert_allclose(found, maps.values.mean(places), atol=1e-6)
    assert found.axes == tuple(axis for axis in maps.axes if axis not in given_axes)
    assert found.values.dtype == np.float32


def test_views_say_what_they_are():
    maps = read("a=3 b=4")
    assert repr(maps) == "AttentionMaps(layers: 3, heads: 4, queries: 7, keys: 7)"
    view = maps.layer(1).mean("heads").between("3", "4")
    assert repr(view) == "AttentionMaps(layer 1, mean over heads, from '4' to '3')"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda maps: maps.layer(3), "layers 0 to 2, got 3"),
        (lambda maps: maps.head(-5), "heads 0 to 3, got -5"),
        (lambda maps: maps.head(0).head(0), "no axis 'heads': there are layers"),
        (lambda maps: maps.mean(), "name the axes"),
        (lambda maps: maps.mean("head"), "did you mean heads"),
        (lambda maps: maps.between("zebra", "is"), "'zebra' do not stand in the text"),
        (lambda maps: maps.between(Span("3", 1), "is"), "'3' do not stand at character 1"),
        (lambda maps: maps.between(99, "is"), "positions 0 to 9, got 99"),
        (lambda maps: maps.between([], "is"), "no words or positions"),
        (lambda maps: maps.between("3"), "kind 'effect'"),
        (lambda maps: maps.between(None, "is"), "kind 'cause'"),
        (lambda maps: maps.between(0, "a"), "no query predicts 'a': it is the first token"),
        (lambda maps: maps.between(slice(0, 2), "is"), r"positions, words or spans.* got slice\("),
        (lambda maps: maps.between([True], "is"), "positions, words or spans, got True"),
        (lambda maps: maps.between([[0]], "is"), r"positions, words or spans, got \[0\]"),
        (lambda maps: maps.between(1.5, "is"), "several of these, got 1.5"),
        (lambda maps: maps.positions(3), "a text or a Span, got 3"),
        (lambda maps: maps.layer("a"), "layer must be a whole number, got 'a'"),
        (lambda maps: maps.head(True), "head must be a whole number, got True"),
        (lambda maps: maps.mean("layers", "layers"), "axes layers, layers: name each once"),
        (lambda maps: maps.mean("keys").between(0, 1), "no axis 'keys'"),
    ],
)
def test_views_that_are_not_there_are_refused(ask, message):
    maps = read("a=3 b is b")
    with pytest.raises(InputError, match=message):
        ask(maps)


def shown(page):
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL))


def test_a_notebook_shows_the_text_and_no_markup_of_it():
    page = read(spurious=["b=4"])._repr_html_()
    assert "<i>" not in page
    assert RECORD.text + "<end>" in shown(page)
    values = re.findall(r'title="([\d.e-]+), (\w+)"', page)
    row = read().of_queries().mean("layers", "heads", "queries").values
    np.testing.assert_allclose([float(value) for value, _ in values], row, atol=1e-4)
    assert [kind for _, kind in values] == list(read(spurious=["b=4"]).kinds)


def test_a_long_text_is_folded_and_scores_are_a_table():
    page = read("a" * 450, queries=[449])._repr_html_()
    assert "… 50 tokens …" in page
    table = read().between()
    cells = [float(x) for x in re.findall(r">(\d\.\d{3})</td>", table._repr_html_())]
    np.testing.assert_allclose(cells, table.values.ravel(), atol=6e-4)
    assert read().mean("layers", "heads", "queries", "keys")._repr_html_().count("<td") == 1


def test_texts_that_are_neither_are_refused():
    with pytest.raises(InputError, match="do not stand in the text"):
        read_text("a b", TOY.tokenizer, ["c"])


def test_models_and_texts_of_another_kind_are_refused():
    with pytest.raises(InputError, match=r"CausalLM.* got a LanguageModel; .*give \.model"):
        read_attention(TOY, TOY.params, TOY.tokenizer, "a b")
    with pytest.raises(InputError, match=r"records\[0\] is a str; give a Record"):
        cat.analysis.read_gradients(TOY, "a b")


@pytest.mark.parametrize("limit", [0, -1, None, "4 GiB", 1.5, True])
def test_limits_are_bytes(limit):
    with pytest.raises(InputError, match="limit_bytes must be"):
        read(limit_bytes=limit)
    with pytest.raises(InputError, match="limit_bytes must be"):
        read(queries=[1], limit_bytes=limit)
    with pytest.raises(InputError, match="limit_bytes must be"):
        read().save_html("a.html", limit_bytes=limit)


def test_sizes_have_their_unit():
    with pytest.raises(InputError, match=r"take 22.7 KiB, above the limit of 9 bytes"):
        read(limit_bytes=9)
    with pytest.raises(InputError, match=r"1 queries .* take 1.03 KiB, above the limit of 1 KiB"):
        read(queries=[1], limit_bytes=1024)


def page_data(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


@pytest.mark.parametrize("queries", [None, [2, 5]])
def test_maps_are_saved_as_a_page(tmp_path, queries):
    maps, path = read(queries=queries), tmp_path / "a.html"
    maps.save_html(path, name="plain", beside={"CAT": maps}, title="<two>", whole_heads=[(2, 1)])
    data = page_data(path)
    assert data["models"] == ["plain", "CAT"]
    assert tuple(data["tokens"]) == maps.tokens
    assert tuple(data["kinds"]) == maps.kinds
    assert data["queries"] == maps.queries.tolist()
    codes = re.search(r'id="map-1">(.*?)</script>', path.read_text(), re.DOTALL)[1].split()
    seen = np.arange(TOKEN_COUNT) <= maps.queries[:, None]
    shown = (np.frombuffer(base64.b64decode(codes[2 * 5 + 1]), np.uint8) / 255) ** 2
    np.testing.assert_allclose(shown, maps.layer(2).head(1).values[seen], atol=0.004)


def test_what_is_no_page_is_refused(tmp_path):
    maps, path = read(), tmp_path / "a.html"
    with pytest.raises(InputError, match="maps of 'model' have the axes heads, queries, keys"):
        maps.layer(0).save_html(path)
    with pytest.raises(InputError, match="two models are named 'model'; give each"):
        maps.save_html(path, beside={"model": maps})
    with pytest.raises(InputError, match="'other' read other tokens or queries than 'model'"):
        maps.save_html(path, beside={"other": read("High")})
    with pytest.raises(InputError, match="beside maps names to maps"):
        maps.save_html(path, beside=maps)
    with pytest.raises(InputError, match=r"pairs of layer and head, such as \(3, 2\): 1"):
        maps.save_html(path, whole_heads=[1])
    with pytest.raises(InputError, match="a layer of whole_heads must be a whole number, got 'a'"):
        maps.save_html(path, whole_heads=[("a", 1)])
    with pytest.raises(InputError, match="is a folder; give the path of a file"):
        maps.save_html(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_the_model_does_not_read_is_refused():
    short = cat.testing.toy_model(max_positions=5)
    with pytest.raises(InputError, match="the text has 9 tokens, and the model reads 5; shorten"):
        read_attention(short.model, short.params, short.tokenizer, "a b c d e")
    with pytest.raises(InputError, match="one text or Record is read at a time, got a list"):
        read(["a", "b"])
