"""What the page of attention maps holds, read back from its text without a browser."""

import base64
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.analysis.pages import attention_page, save_attention_page
from cat_jax.analysis.pages.codes import LARGEST_ERROR, encode, pool, text_bytes, text_of
from cat_jax.analysis.pages.contents import Shape, choose
from cat_jax.errors import InputError

LAYERS, HEADS, TOKENS = 2, 3, 7
WORDS = [f"w{n}" for n in range(TOKENS)]


def causal_maps(layers, heads, tokens, queries=None, seed=0):
    """Softmax of random scores over the keys that each query sees."""
    places = np.arange(tokens) if queries is None else np.array(queries)
    scores = np.random.default_rng(seed).normal(0, 3, (layers, heads, len(places), tokens))
    scores = np.where(np.arange(tokens) <= places[:, None], scores, -np.inf)
    exp = np.exp(scores - scores.max(-1, keepdims=True))
    return (exp / exp.sum(-1, keepdims=True)).astype(np.float32)


def with_means(maps_NHQK):
    """Maps [N + 1, H + 1, Q, K] with the means as the last layer and the last head."""
    exact = np.concatenate([maps_NHQK, maps_NHQK.mean(1, keepdims=True, dtype=float)], 1)
    return np.concatenate([exact, exact.mean(0, keepdims=True)], 0)


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def block_of(page, name):
    """The values of each line of a block."""
    (text,) = re.findall(rf'id="{name}">(.*?)</script>', page, re.DOTALL)
    lines = (np.frombuffer(base64.b64decode(line), np.uint8) for line in text.split("\n"))
    return [(codes / 255.0) ** 2 for codes in lines]


def assert_within_eight_bits(values, exact):
    assert values.shape == exact.shape
    assert (abs(values - exact) <= np.sqrt(exact) / 255 + 1 / 510**2 + 1e-7).all()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_a_value_is_off_by_no_more_than_is_said(values):
    exact = np.array(values, np.float32)
    assert_within_eight_bits((encode(exact) / 255.0) ** 2, exact.astype(float))


def test_the_largest_error_is_reached_and_not_exceeded():
    exact = np.linspace(0, 1, 1_000_001)
    errors = abs((encode(exact) / 255.0) ** 2 - exact)
    assert errors.max() == pytest.approx(LARGEST_ERROR, rel=1e-3)
    assert errors.max() <= LARGEST_ERROR
    small = exact < 1 / 256
    assert errors[small].max() < 1 / 510 / 7  # an eighth of the error of evenly spaced codes


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_pooled_values_are_the_largest_of_their_blocks(height, width, data):
    high, wide = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    codes = np.random.default_rng(height * 41 + width).integers(0, 256, (height, width), np.uint8)
    expected = np.zeros((high, wide), np.uint8)
    for row in range(height):
        for key in range(width):  # the script's rule
            y, x = ((row + 1) * high - 1) // height, ((key + 1) * wide - 1) // width
            expected[y, x] = max(expected[y, x], codes[row, key])
    np.testing.assert_array_equal(pool(codes, (high, wide)), expected)


def test_the_bytes_of_a_text_are_known_before_it_is_made():
    for count in range(10):
        assert text_bytes(count) == len(text_of(np.zeros(count, np.uint8))) + 1


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 90)).map(
    lambda sizes: Shape(sizes[0], sizes[1], tuple(range(sizes[2])), sizes[2])
)


@given(SHAPES, st.integers(1, 200_000), st.data())
def test_what_is_whole_fits_the_budget_and_holds_what_is_asked_for(shape, limit, data):
    one = st.tuples(
        st.integers(0, shape.layers - 1), st.integers(0, shape.heads - 1) | st.just("mean")
    )
    heads = data.draw(st.lists(one, max_size=3))
    rows = data.draw(st.none() | st.lists(st.integers(0, shape.keys - 1), unique=True, max_size=3))
    try:
        found = choose(shape, limit, heads, rows, range(shape.keys))
    except InputError:
        least = shape.pooled_bytes + len(set(heads)) * shape.map_bytes
        smallest = [shape.keys - 1] if rows is None else rows
        assert least + shape.cells * shape.row_bytes(smallest) > limit
        return
    size = shape.pooled_bytes + len(found.maps) * shape.map_bytes
    size += shape.cells * shape.row_bytes(found.rows) if found.rows else 0
    assert size <= found.bytes <= limit
    assert {shape.cell(head) for head in heads} <= set(found.maps)
    assert len(found.maps) == shape.cells or rows is None or set(found.rows) == set(rows)


def test_thirty_layers_of_nine_heads_over_256_tokens_are_whole_within_the_default_budget():
    found = choose(Shape(30, 9, tuple(range(256)), 256), 30_000_000, (), None, [255])
    assert len(found.maps) == 31 * 10
    assert 13e6 < found.bytes < 16e6


@pytest.mark.parametrize("queries", [None, [1, 4, 6]], ids=["all", "chosen"])
def test_every_map_and_every_mean_is_on_the_page(queries):
    maps = {
        name: causal_maps(LAYERS, HEADS, TOKENS, queries, seed) for seed, name in enumerate("ab")
    }
    page = attention_page(maps, WORDS, queries=queries)
    places = range(TOKENS) if queries is None else queries
    assert data_of(page)["queries"] == list(places)
    for number, maps_NHQK in enumerate(maps.values()):
        exact = with_means(maps_NHQK)
        cells = exact.reshape(-1, len(places), TOKENS)
        for line, pooled, map_QK in zip(
            block_of(page, f"map-{number}"), block_of(page, f"pooled-{number}"), cells, strict=True
        ):
            rows = [map_QK[row, : place + 1] for row, place in enumerate(places)]
            assert_within_eight_bits(line, np.concatenate(rows))
            assert_within_eight_bits(pooled.reshape(map_QK.shape), map_QK)


def test_where_not_all_fits_what_is_asked_for_is_whole_and_the_rest_pooled():
    tokens = 130
    maps = causal_maps(LAYERS, HEADS, tokens)
    words = [f"w{n}" for n in range(tokens)]
    shape = Shape(LAYERS, HEADS, tuple(range(tokens)), tokens)
    room = shape.pooled_bytes + 12 * shape.row_bytes([7, 99]) + 2 * shape.map_bytes
    page = attention_page(
        {"m": maps}, words, whole_heads=[(1, 2)], whole_queries=[99, 7], limit_bytes=room
    )
    data = data_of(page)
    assert data["maps"] == [shape.cell((1, 2)), shape.cell(("mean", "mean"))]
    assert data["rows"] == [7, 99]
    exact = with_means(maps).reshape(-1, tokens, tokens)
    lower = np.tril_indices(tokens)
    for line, cell in zip(block_of(page, "map-0"), data["maps"], strict=True):
        assert_within_eight_bits(line, exact[cell][lower])
    for line, map_QK in zip(block_of(page, "rows-0"), exact, strict=True):
        assert_within_eight_bits(line, np.concatenate([map_QK[7, :8], map_QK[99, :100]]))
    starts = np.arange(64) * tokens // 64
    for line, map_QK in zip(block_of(page, "pooled-0"), exact, strict=True):
        largest = np.maximum.reduceat(np.maximum.reduceat(map_QK, starts, 0), starts, 1)
        assert_within_eight_bits(line.reshape(64, 64), largest)
    blocks = re.findall(r'id="(?:map|rows|pooled)-0">(.*?)</script>', page, re.DOTALL)
    assert sum(map(len, blocks)) <= data["bytes"] <= room


def test_queries_that_predict_effects_are_whole_by_default():
    tokens, kinds = 300, ["other"] * 300
    kinds[120] = kinds[121] = "effect"
    maps = causal_maps(1, 2, tokens)
    words = [f"w{n}" for n in range(tokens)]
    data = data_of(attention_page({"m": maps}, words, kinds, limit_bytes=150_000))
    assert data["rows"] == [119, 120]
    assert data_of(attention_page({"m": maps}, words, limit_bytes=150_000))["rows"] == [299]


MAPS = causal_maps(LAYERS, HEADS, TOKENS)
LATER = MAPS + np.eye(TOKENS, k=1, dtype=np.float32)


def changed(value):
    maps = MAPS.copy()
    maps[1, 2, 4, 3] = value
    return maps


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ({}, {}, "shows one model or two, not 0"),
        (dict.fromkeys("abc", MAPS), {}, "one model or two, not 3"),
        ({"m": MAPS}, {"kinds": ["other"]}, "1 kinds for 7 tokens"),
        ({"m": MAPS}, {"kinds": ["other"] * 6 + ["causal"]}, "token 6 is of the kind 'causal'"),
        ({"m": MAPS[0]}, {}, r"have shape \[3, 7, 7\]"),
        ({"m": MAPS[..., :3, :]}, {}, r"\[layers, heads, 7 queries, 7 keys\] is needed"),
        ({"m": MAPS, "n": MAPS[:1]}, {}, "maps of one shape, not 'm'"),
        ({"m": MAPS}, {"queries": [2, 1]}, "ascending"),
        ({"m": MAPS[..., :1, :]}, {"queries": [7]}, "between 0 and 6"),
        ({"m": MAPS[..., 5:, :]}, {"queries": [4, 5]}, "later tokens"),
        ({"m": LATER}, {}, "later tokens"),
        ({"m": changed(np.nan)}, {}, "'m', layer 1, head 2: row 4, key 3 is nan"),
        ({"m": changed(1.5)}, {}, "row 4, key 3 is 1.5"),
        ({"m": changed(-0.1)}, {}, "row 4, key 3 is -0.1"),
        ({"m": MAPS}, {"whole_heads": [(2, 0)]}, "names layer 2; there are 0 to 1"),
        ({"m": MAPS}, {"whole_heads": [(0, 3)]}, "names head 3; there are 0 to 2"),
        ({"m": MAPS}, {"whole_queries": [7]}, "token 7, which is no query"),
        ({"m": MAPS}, {"limit_bytes": 100}, "limit_bytes is 100"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused(maps, options, message):
    with pytest.raises(InputError, match=message):
        attention_page(maps, WORDS, **options)


def test_no_tokens_are_refused():
    with pytest.raises(InputError, match="no tokens"):
        attention_page({"m": MAPS}, [])


def test_text_of_data_never_becomes_markup(tmp_path):
    hostile = ["</script><script>alert(1)</script>", "<!--", '"', "'", "\ud83d", "\n", "&amp;"]
    save_attention_page(tmp_path / "a" / "page.html", {"</script>": MAPS}, hostile, title="<b>")
    page = (tmp_path / "a" / "page.html").read_text("utf-8")
    assert page.count("</script>") == page.count("<script") == 5
    assert page.count("<!--") == 0
    assert data_of(page)["tokens"] == hostile
    assert data_of(page)["title"] == "<b>"


def test_the_page_allows_its_own_script_and_style_alone():
    page = attention_page({"m": MAPS}, WORDS)
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=|style=|https?://|\bsrc=|\bhref=", page.split('id="data"')[0])
