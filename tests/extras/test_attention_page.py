"""The page of attention maps in a browser: what it draws and says are the numbers it was given."""

import re
import time

import numpy as np
import pytest
from browser import severe_errors

from cat_jax.analysis.pages import save_attention_page
from experiments.benchmarking.browser import requested_elsewhere

LAYERS, HEADS = 2, 3
TOKENS = [
    "</script><script>window.bad = 1</script>", '<img src=x onerror="window.bad = 1">', " a", "\n",
    "'\"&amp;", " 👩‍👩‍👧", " سارة", " 3", "\u202e", "", "\t", "  ", " High",
]  # fmt: skip
KINDS = ["other"] * 7 + ["cause", "other", "other", "spurious", "other", "effect"]
LAST = len(TOKENS) - 1


def causal_maps(layers, heads, tokens, queries=None, seed=0):
    """Softmax of random scores over the keys that each query sees."""
    places = np.arange(tokens) if queries is None else np.array(queries)
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, (layers, heads, len(places), tokens)).astype(np.float32)
    scores = np.where(np.arange(tokens) <= places[:, None], scores, -np.inf)
    exp = np.exp(scores - scores.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def with_means(maps_NHQK):
    exact = np.concatenate([maps_NHQK, maps_NHQK.mean(1, keepdims=True, dtype=float)], 1)
    return np.concatenate([exact, exact.mean(0, keepdims=True)], 0)


BEFORE = causal_maps(LAYERS, HEADS, len(TOKENS))
AFTER = causal_maps(LAYERS, HEADS, len(TOKENS), seed=1)
EXACT = {"before": with_means(BEFORE), "after": with_means(AFTER)}


def allowed(exact):
    """What eight bits may be off by, and the four digits that are shown."""
    return np.sqrt(exact) / 255 + 1 / 510**2 + 6e-5


@pytest.fixture
def page(driver, folder):
    file = folder / "two.html"
    if not file.exists():
        save_attention_page(
            file, {"before": BEFORE, "after": AFTER}, TOKENS, KINDS, title="<b>Two</b>"
        )
    open_page(driver, file)
    return driver


def open_page(driver, file):
    driver.get(f"file://{file}")


def run(driver, code, *given):
    return driver.execute_script(code, *given)


def text_of(driver, selector):
    return run(driver, "return document.querySelector(arguments[0]).textContent", selector)


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(driver)
    for key in keys:
        chain.send_keys(key)
    chain.perform()


def pointer(driver, row, key, *, panel=0, click=False, shape=None):
    """Move the mouse to the middle of a pair's square on a map, and click it or not."""
    from selenium.webdriver.common.action_chains import ActionChains

    high, wide = shape or (len(TOKENS), len(TOKENS))
    canvas = driver.find_elements("css selector", ".map canvas")[panel]
    run(driver, "arguments[0].scrollIntoView({block: 'center'})", canvas)
    size = canvas.size
    x = int(((key + 0.5) / wide - 0.5) * size["width"])
    y = int(((row + 0.5) / high - 0.5) * size["height"])
    chain = ActionChains(driver).move_to_element_with_offset(canvas, x, y)
    (chain.click() if click else chain).perform()


def numbers(text):
    return [float(x.replace("−", "-")) for x in re.findall(r"−?\d+(?:\.\d+(?:e-\d+)?)?", text)]


def read_values(text):
    """The values of a reading, each with what it may be off by."""
    return [
        [float(part.replace("−", "-")) for part in found]
        for found in re.findall(r"(−?[\d.]+(?:e-\d+)?) ± ([\d.]+(?:e-\d+)?)", text)
    ]


ROWS = """
const found = [];
for (let cell = 0; cell < (LAYERS + 1) * (HEADS + 1); cell += 1)
  found.push(queries.map((_, row) => Array.from(rowCodes(models[arguments[0]], cell, row))));
return found;
"""


def test_all_values_of_all_heads_are_those_of_the_arrays(page):
    for number, exact in enumerate(EXACT.values()):
        cells = exact.reshape(-1, len(TOKENS), len(TOKENS))
        for rows, map_QK in zip(run(page, ROWS, number), cells, strict=True):
            assert [len(row) for row in rows] == list(range(1, len(TOKENS) + 1))
            for row, expected in zip(rows, map_QK, strict=True):
                error = abs((np.array(row) / 255) ** 2 - expected[: len(row)])
                assert (error <= allowed(expected[: len(row)]) - 5e-5).all()


@pytest.mark.parametrize(("layer", "head"), [(1, 2), (0, HEADS), (LAYERS, 1), (LAYERS, HEADS)])
def test_pointing_at_a_map_says_the_pair_and_its_value(page, layer, head):
    run(page, "choose({layer: arguments[0], head: arguments[1], view: 2})", layer, head)
    for panel, (row, key) in enumerate([(7, 2), (LAST, LAST)]):
        pointer(page, row, key, panel=panel)
        said = text_of(page, "#reading")
        assert said.startswith(f"query {row} “")
        assert f"→ key {key} “" in said
        values = read_values(said)
        exact = [EXACT[name][layer, head, row, key] for name in EXACT]
        for (value, error), expected in zip(values, [*exact, exact[1] - exact[0]], strict=True):
            assert abs(value - expected) <= error + 6e-5
        assert values[0][1] == pytest.approx(allowed(values[0][0]), abs=1e-4)
    pointer(page, 2, 7)  # a later token
    assert text_of(page, "#reading") == "Point at a map or at a word."


def test_a_click_chooses_the_query_and_shades_the_text_by_where_it_looks(page):
    run(page, "choose({layer: 1, head: 0, view: 2})")
    pointer(page, 8, 3, panel=1, click=True)
    assert run(page, "return [state.row, document.getElementById('query').value]") == [8, "8"]
    colours = """return drawn.map(({ spans, panel }) => spans.map((span, key) => [
        span.style.background, css(colourOf(arguments[0][panel.name][key], 1, false))]))"""
    exact = {name: maps[1, 0, 8].tolist() for name, maps in EXACT.items()}
    for spans in run(page, colours, exact):
        for key, (drawn, expected) in enumerate(spans):
            if key > 8:
                assert drawn == "none"
            else:  # eight bits move a colour by two steps of 510 at most
                assert np.abs(np.subtract(numbers(drawn), numbers(expected))).max() <= 6
    page.find_elements("css selector", ".text span")[5].click()
    assert run(page, "return state.row") == 5
    assert "query 5" in text_of(page, "#status")


def test_pointing_at_a_word_says_what_the_chosen_query_gives_it(page):
    from selenium.webdriver.common.action_chains import ActionChains

    run(page, "choose({layer: 0, head: 1, view: 0, row: 11})")
    span = page.find_elements("css selector", ".text span")[7]
    ActionChains(page).move_to_element(span).perform()
    said = text_of(page, "#reading")
    assert said.startswith("query 11 “␣␣” → key 7 “ 3”: before ")
    value, error = read_values(said)[0]
    assert abs(value - EXACT["before"][0, 1, 11, 7]) <= error + 6e-5


def test_the_strongest_keys_stand_in_a_table(page):
    run(page, "choose({layer: 1, head: 2, view: 3, row: 12})")
    rows = run(
        page,
        "return [...document.querySelectorAll('#strongest tbody tr')].map("
        "(row) => [...row.cells].map((cell) => cell.textContent))",
    )
    before, after = (maps[1, 2, 12] for maps in EXACT.values())
    shown = [int(cells[0].split(" ")[0]) for cells in rows]
    sizes = abs(after - before)
    assert len(rows) == 12
    assert set(range(13)) - set(shown) <= {int(np.argmin(sizes))}
    assert (np.diff(sizes[shown]) <= 0.016).all()
    for key, cells in zip(shown, rows, strict=True):
        assert cells[1] == KINDS[key]
        first, second, difference = (float(x.replace("−", "-")) for x in cells[2:])
        assert abs(first - before[key]) <= allowed(before[key])
        assert abs(second - after[key]) <= allowed(after[key])
        assert difference == pytest.approx(second - first, abs=2e-4)


PIXELS = """
const canvas = document.querySelectorAll(arguments[0])[arguments[1]];
const { width, height } = canvas;
return [height, width, Array.from(canvas.getContext("2d").getImageData(0, 0, width, height).data)];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", ["before", "after", "difference"])
def test_pixels_have_the_colours_of_the_values(page, theme, view):
    scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    number = {"before": 0, "after": 1, "difference": 3}[view]
    run(page, "choose({layer: 1, head: 1, view: arguments[0], top: 0.3})", number)
    before, after = (maps[1, 1] for maps in EXACT.values())
    exact = {"before": before, "after": after, "difference": after - before}[view]
    stops = run(page, "return palette[arguments[0]]", "difference" if number == 3 else "attention")
    unseen = run(page, "return palette.unseen")
    ramp = np.array(stops)
    assert len(ramp) == 511
    height, width, pixels = run(page, PIXELS, ".map canvas", 0)
    image = np.array(pixels).reshape(height, width, 4)
    assert (image[..., 3] == 255).all()
    for row in range(height):
        for key in range(width):
            if key > row:
                assert image[row, key, :3].tolist() == unseen
                continue
            error = sum(
                allowed(x[row, key]) for x in ((before, after) if number == 3 else (exact,))
            )
            ends = np.clip([exact[row, key] - error, exact[row, key] + error], -0.3, 0.3)
            root = np.sign(ends) * np.sqrt(abs(ends) / 0.3)
            places = 255 * (1 - root[::-1]) if number == 3 else 510 * np.maximum(root, 0)
            first, last = int(np.floor(places[0])), int(np.ceil(places[1]))
            assert image[row, key, :3].tolist() in ramp[first : last + 1].tolist()


def test_thumbnails_are_the_maps(page):
    """Up to 64 tokens a thumbnail has a pixel for each pair."""
    run(page, "choose({layer: 0, head: 2, view: 1})")
    cell = 0 * (HEADS + 1) + 2
    assert run(page, PIXELS, "#grid canvas", cell) == run(page, PIXELS, ".map canvas", 0)


def test_keys_move_through_layers_heads_queries_and_views(page):
    from selenium.webdriver.common.keys import Keys

    def chosen():
        return run(page, "return [state.layer, state.head, state.row, state.view]")

    assert chosen() == [LAYERS, HEADS, LAST - 1, 2]  # the query that predicts the effect
    press(page, Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT, ",", ",", ",", ".", "v")
    assert chosen() == [1, 1, LAST - 3, 3]
    assert text_of(page, "#chosen") == "layer 1, head 1"
    press(page, "h")
    assert chosen()[1] == HEADS
    assert text_of(page, "#chosen") == "layer 1, mean over heads"
    press(page, "h", "l", Keys.HOME, "v")
    assert chosen() == [LAYERS, 1, 0, 0]
    press(page, *[Keys.ARROW_DOWN] * 9, *[Keys.ARROW_RIGHT] * 9, Keys.END, ".")
    assert chosen()[:3] == [LAYERS, HEADS, LAST]
    press(page, "?")
    assert run(page, "return document.getElementById('help').open") is True
    help_text = text_of(page, "#help")
    for words in ("code c stands for (c / 255)²", "0.0039", "for each of the two models"):
        assert words in help_text
    keys = run(page, "return Object.keys(KEYS)")
    signs = {"ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓"}
    listed = run(page, "return [...document.querySelectorAll('#help kbd')].map(x => x.textContent)")
    assert {signs.get(key, key) for key in keys} == set(listed)


def test_arrows_keep_the_focus_in_the_grid_and_choose_in_lists(page):
    from selenium.webdriver.common.keys import Keys

    run(
        page,
        "choose({layer: 0, head: 0}); document.querySelector('#grid [tabindex=\"0\"]').focus()",
    )
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    focused = "return document.activeElement.getAttribute('aria-label')"
    assert run(page, focused) == "layer 1, head 1"
    assert run(page, "return document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1
    run(page, "document.getElementById('head').focus()")
    press(page, Keys.ARROW_DOWN)
    assert run(page, "return [state.layer, state.head]") == [1, 2]


def test_every_control_has_a_name_for_screen_readers(page):
    controls = page.find_elements("css selector", "select, #panels canvas[role], [role=grid], h1")
    assert all(one.accessible_name for one in controls)
    assert [one.accessible_name for one in page.find_elements("css selector", "select")] == [
        "Layer", "Head", "Query", "Show", "Full colour at",
    ]  # fmt: skip
    cells = page.find_elements("css selector", "#grid button")
    assert len(cells) == (LAYERS + 1) * (HEADS + 1)
    assert cells[4].accessible_name == "layer 1, head 0"
    assert page.find_element("id", "status").aria_role == "status"
    selected = page.find_elements("css selector", "[role=gridcell][aria-selected=true]")
    assert len(selected) == 1


def test_markup_in_texts_stays_text_and_nothing_is_asked_for(page):
    assert run(page, "return document.querySelectorAll('img, b, .text script').length") == 0
    assert text_of(page, "h1") == "<b>Two</b>"
    words = run(
        page, "return [...document.querySelectorAll('.text')[0].children].map(x => x.textContent)"
    )
    assert words[0] == TOKENS[0]
    assert words[3] == "⏎\n"
    assert "‹U+202E›" in text_of(page, "#query")
    assert run(page, "return window.bad") is None
    press(page, "v", "h", "l", "?")
    assert requested_elsewhere(page) == []
    assert severe_errors(page) == []
    run(  # The policy holds: a script that a text would bring in does not run.
        page,
        "const s = document.createElement('script'); s.textContent = 'window.bad = 1';"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'https://example.com/x.png';"
        "document.body.append(i)",
    )
    time.sleep(0.2)
    assert run(page, "return window.bad") is None
    assert len(severe_errors(page)) == 2


def test_chosen_queries_alone_are_shown_over_all_keys(driver, folder):
    queries = [3, 9, 12]
    maps = causal_maps(LAYERS, HEADS, len(TOKENS), queries, seed=2)
    save_attention_page(folder / "rows.html", {"m": maps}, TOKENS, KINDS, queries=queries)
    open_page(driver, folder / "rows.html")
    assert (
        text_of(driver, "#summary")
        == "13 tokens, 3 queries, 2 layers, 3 heads. All maps are whole."
    )
    run(driver, "choose({layer: 1, head: 2})")
    pointer(driver, 1, 4, shape=(3, 13), click=True)
    said = text_of(driver, "#reading")
    pointer(driver, 1, 4, shape=(3, 13))
    said = text_of(driver, "#reading")
    assert said.startswith("query 9 “∅” → key 4 “'\"&amp;”: ")
    value, error = read_values(said)[0]
    assert abs(value - maps[1, 2, 1, 4]) <= error + 6e-5
    driver.find_elements("css selector", ".text span")[5].click()  # no query
    assert run(driver, "return queries[state.row]") == 9
    assert run(driver, "return document.getElementById('view-label').hidden") is True


def test_thirty_layers_of_nine_heads_over_256_tokens_open_within_three_seconds(driver, folder):
    maps = causal_maps(30, 9, 256)
    file = folder / "whole.html"
    save_attention_page(file, {"m": maps}, [f" w{n}" for n in range(256)])
    assert file.stat().st_size < 16e6
    start = time.monotonic()
    open_page(driver, file)
    run(driver, "choose({layer: 17, head: 5, row: 200})")
    assert time.monotonic() - start < 3
    assert "All maps are whole." in text_of(driver, "#summary")
    pointer(driver, 231, 97, shape=(256, 256))
    said = text_of(driver, "#reading")
    row, key = (int(x) for x in re.match(r"query (\d+) .*? → key (\d+) ", said).groups())
    assert abs(row - 231) <= 1  # a pair is less than two pixels wide
    assert abs(key - 97) <= 1
    value, error = read_values(said)[0]
    assert abs(value - maps[17, 5, row, key]) <= error + 6e-5
    read = "return queries.map((_, row) => Array.from(rowCodes(models[0], cellOf(29, 8), row)))"
    for row, codes in enumerate(run(driver, read)):
        expected = maps[29, 8, row, : row + 1]
        assert (abs((np.array(codes) / 255) ** 2 - expected) <= allowed(expected)).all()


LONG = 1100


@pytest.fixture(scope="module")
def long_maps():
    return causal_maps(2, 2, LONG, seed=3)


@pytest.fixture
def long_page(driver, folder, long_maps):
    file = folder / "long.html"
    if not file.exists():
        words = [f" w{n}" for n in range(LONG)]
        save_attention_page(
            file, {"m": long_maps}, words, whole_heads=[(1, 0)], whole_queries=[40, 1000],
            limit_bytes=2_000_000,
        )  # fmt: skip
    assert file.stat().st_size < 2_100_000
    open_page(driver, file)
    return driver


def test_a_long_text_says_what_is_whole(long_page):
    assert text_of(long_page, "#summary") == (
        "1,100 tokens, 2 layers, 2 heads. Whole maps: layer 1, head 0; mean of all layers and "
        "heads. Whole in every map: query 40, query 1000. All else is pooled to 64 × 64 blocks, "
        "each showing its largest value."
    )
    marked = long_page.find_elements("css selector", "#grid .whole button")
    assert [one.accessible_name for one in marked] == [
        "layer 1, head 0, whole",
        "mean of all layers and heads, whole",
    ]


def test_a_block_of_a_pooled_map_says_its_largest_value(long_page, long_maps):
    run(long_page, "choose({layer: 0, head: 1})")
    assert text_of(long_page, "#chosen") == "layer 0, head 1, pooled to 64 × 64"
    pointer(long_page, 50, 13, shape=(64, 64))
    rows, keys = ([n * LONG // 64 for n in (one, one + 1)] for one in (50, 13))
    said = text_of(long_page, "#reading")
    assert said.startswith(
        f"queries {rows[0]} to {rows[1] - 1} → keys {keys[0]} to {keys[1] - 1}, largest value: "
    )
    value, error = read_values(said)[0]
    expected = long_maps[0, 1, rows[0] : rows[1], keys[0] : keys[1]].max()
    assert abs(value - expected) <= error + 6e-5


def test_a_whole_query_of_a_pooled_map_has_its_own_values(long_page, long_maps):
    run(long_page, "choose({layer: 0, head: 1})")
    block = next(n for n in range(64) if (n + 1) * LONG // 64 > 1000)
    pointer(long_page, block, 2, shape=(64, 64), click=True)
    assert run(long_page, "return state.row") == 1000
    read = (
        "return queries.slice(0, 1001)"
        ".map((key) => shownAt(drawn[0].panel, cellShown(), 1000, key))"
    )
    expected = long_maps[0, 1, 1000, :1001]
    assert (abs(np.array(run(long_page, read)) - expected) <= allowed(expected)).all()
    assert "pooled" not in text_of(long_page, "caption")
    press(long_page, ",")
    assert "(pooled: of each block the largest value)" in text_of(long_page, "caption")


def test_a_whole_map_of_many_tokens_shows_the_largest_pair_of_each_pixel(long_page, long_maps):
    run(long_page, "choose({layer: 1, head: 0})")
    assert text_of(long_page, "#chosen") == "layer 1, head 0"
    map_QK = long_maps[1, 0]
    read = "return [drawn[0].picture.high, Array.from(drawn[0].picture.values)]"
    side, values = run(long_page, read)
    assert side == 512
    starts = np.arange(side) * LONG // side
    largest = np.maximum.reduceat(np.maximum.reduceat(map_QK, starts, 0), starts, 1)
    assert (abs(np.reshape(values, (side, side)) - largest) <= allowed(largest)).all()
    run(long_page, "point(pairAt(drawn[0].picture, 400, 100))")
    said = text_of(long_page, "#reading")
    row, key = (int(x) for x in re.match(r"query (\d+) .*? → key (\d+) ", said).groups())
    assert starts[400] <= row < starts[401]
    assert starts[100] <= key < starts[101]
    value, error = read_values(said)[0]
    assert abs(value - map_QK[row, key]) <= error + 6e-5
    assert abs(value - largest[400, 100]) <= error + 6e-5


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    page.set_window_size(max(width, 500), 900)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert run(page, "return [innerWidth, document.documentElement.scrollWidth]")[1] <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.set_window_size(1280, 900)
