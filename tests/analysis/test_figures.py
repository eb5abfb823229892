from io import BytesIO
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cat_jax.analysis import answer_attention_figure, save_figure, training_curves_figure
from cat_jax.analysis.figures import LABEL_GAP, _spread
from cat_jax.errors import InputError

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"

TOKENS = [" Price", ": ", "$5 and $", "\n", "7", "a token that is far too long"]
CAUSAL = np.array([False, False, True, False, True, False])
SPURIOUS = np.array([True, False, False, False, False, False])
ATTENTION = {
    "plain $x$": np.array([0.3, 0.1, 0.05, 0.25, 0.15, 0.15]),
    "CAT": np.array([0.6, 0.01, 0.2, 0.05, 0.1, 0.04]),
}


def rendered(figure):
    """Pixels, drawn without any global figure; layout is final afterwards."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def bars(axis):
    return [patch for patch in axis.patches if isinstance(patch, Rectangle)]


def test_bars_are_the_attention_in_the_colours_of_their_kind():
    figure = answer_attention_figure(TOKENS, ATTENTION, CAUSAL, SPURIOUS)
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(ATTENTION)
    for axis, row in zip(figure.axes, ATTENTION.values(), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in bars(axis)], row)
        centres = [bar.get_x() + bar.get_width() / 2 for bar in bars(axis)]
        np.testing.assert_allclose(centres, range(6))
        colours = [to_hex(bar.get_facecolor()) for bar in bars(axis)]
        assert colours == [ORANGE, GREY, BLUE, GREY, BLUE, GREY]


def test_each_panel_says_the_share_of_each_kind():
    figure = answer_attention_figure(TOKENS, ATTENTION, CAUSAL, SPURIOUS)
    for axis, shares in zip(figure.axes, [(20, 30, 50), (30, 60, 10)], strict=True):
        legend = axis.get_legend()
        texts = [text.get_text().split() for text in legend.get_texts()]
        kinds = ["causal", "spurious", "other"]
        assert texts == [[f"{s}%", kind] for s, kind in zip(shares, kinds, strict=True)]
        colours = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
        assert colours == [BLUE, ORANGE, GREY]


def test_token_labels_are_readable_and_take_the_colour_of_their_kind():
    figure = answer_attention_figure(TOKENS, ATTENTION, CAUSAL, SPURIOUS)
    labels = figure.axes[-1].get_xticklabels()
    assert [label.get_text() for label in labels] == [
        "Price",
        ":",
        "$5 and $",
        r"\n",
        "7",
        "a token that is far…",
    ]
    assert [to_hex(label.get_color()) for label in labels[:1] + labels[2:3]] == [ORANGE, BLUE]


def test_blank_tokens_stay_visible():
    figure = answer_attention_figure(["  ", "x"], {"CAT": np.array([0.5, 0.5])}, *np.eye(2) > 0)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["␣␣", "x"]


def test_scale_is_shared_and_a_sink_on_the_first_token_is_cut():
    figure = answer_attention_figure(TOKENS, ATTENTION, CAUSAL, SPURIOUS)
    tops = [axis.get_ylim()[1] for axis in figure.axes]
    assert tops[0] == tops[1]
    assert 0.25 < tops[0] < 0.3
    written = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert written == [["↑30%"], ["↑60%"]]
    low = {"CAT": np.array([0.1, 0.5, 0.1, 0.1, 0.1, 0.1])}
    assert not answer_attention_figure(TOKENS, low, CAUSAL, SPURIOUS).axes[0].texts


def test_text_from_data_is_never_mathtext():
    # As formulas, both would fail to parse.
    tokens = [r"$\frac$", "$x^$", *TOKENS[2:]]
    attention = {r"$\frac$": ATTENTION["CAT"]}
    figure = answer_attention_figure(tokens, attention, CAUSAL, SPURIOUS, title=r"of $\frac$")
    rendered(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[:2] == [r"$\frac$", "$x^$"]
    rendered(training_curves_figure({r"$\frac$": [point(1, 0.5, 0.5, 0.5)]}))


@pytest.mark.parametrize("length", [3, 20, 70])
def test_nothing_overlaps_or_leaves_the_page(length):
    tokens = [f" token{i}" for i in range(length)]
    attention = {name: np.full(length, 1 / length) for name in ("plain", "CAT")}
    causal = np.arange(length) == 1
    title = "Attention of the row that predicts “" + "a long answer " * 9 + "”"
    figure = answer_attention_figure(tokens, attention, causal, ~causal, title=title)
    rendered(figure)
    page = figure.bbox
    labels = [label.get_window_extent() for label in figure.axes[-1].get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in pairwise(labels))
    texts = [figure._suptitle, *(axis.get_legend() for axis in figure.axes)]
    boxes = labels + [text.get_window_extent() for text in texts]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
    assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": {}}, "no method"),
        ({"attention": {"CAT": np.ones(5)}}, r"'CAT' has shape \(5,\), but there are 6 tokens"),
        ({"causal": CAUSAL[:2]}, r"'causal' has shape \(2,\)"),
        ({"spurious": CAUSAL}, "token 2 is both"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, message):
    good = {"attention": ATTENTION, "causal": CAUSAL, "spurious": SPURIOUS}
    with pytest.raises(ValueError, match=message):
        answer_attention_figure(TOKENS, **good | change)


def point(step, iid, ood, causal_mass):
    return {"step": step, "iid": iid, "ood": ood, "causal_mass": causal_mass}


# Two seeds, out of order, the second shorter; then one seed.
HISTORY = {
    "plain": [
        point(20, 0.8, 0.5, 0.1),
        point(10, 0.6, 0.4, 0.2),
        point(10, 0.2, 0.3, 0.4),
    ],
    "CAT": [point(10, 0.7, 0.6, 0.5), point(20, 0.9, 0.85, 0.7)],
}


def test_curves_are_means_over_seeds_with_the_range_as_a_band():
    figure = training_curves_figure(HISTORY)
    accuracy, mass = figure.axes
    curves = {(line.get_color(), line.get_linestyle()): line.get_ydata() for line in accuracy.lines}
    (plain, cat) = (line.get_color() for line in mass.lines)
    assert plain != cat
    np.testing.assert_allclose(curves[plain, "-"], [0.4, 0.8])
    np.testing.assert_allclose(curves[plain, "--"], [0.35, 0.5])
    np.testing.assert_allclose(curves[cat, "-"], [0.7, 0.9])
    np.testing.assert_allclose(curves[cat, "--"], [0.6, 0.85])
    np.testing.assert_allclose(mass.lines[0].get_ydata(), [0.3, 0.1])
    for line in [*accuracy.lines, *mass.lines]:
        np.testing.assert_array_equal(line.get_xdata(), [10, 20])
    vertices = accuracy.collections[0].get_paths()[0].vertices
    at_10 = vertices[vertices[:, 0] == 10, 1]
    np.testing.assert_allclose([at_10.min(), at_10.max()], [0.2, 0.6])


def test_curves_are_named_at_their_ends_without_overlap():
    near = {name: [point(10, 0.97, 0.96, 0.5)] for name in ("plain", "CAT", "CAT, other loss")}
    figure = training_curves_figure(near)
    rendered(figure)
    accuracy, mass = figure.axes
    labels = {text.get_text(): text for text in accuracy.texts}
    assert {"97% plain, IID", "96% plain, OOD", "97% CAT, IID"} <= labels.keys()
    assert len(labels) == 6
    colours = {line.get_color() for line in accuracy.lines}
    assert {text.get_color() for text in labels.values()} == colours
    boxes = sorted(
        (matplotlib.text.Text.get_window_extent(text) for text in labels.values()),
        key=lambda box: box.y0,
    )
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert all(box.x1 <= mass.get_tightbbox().x0 for box in boxes)


def test_a_mass_that_was_never_measured_has_no_panel():
    figure = training_curves_figure({"plain": [point(10, 0.5, 0.5, float("nan"))]})
    rendered(figure)
    (accuracy,) = figure.axes
    assert len(accuracy.texts) == 2


@pytest.mark.parametrize("history", [{}, {"CAT": []}])
def test_empty_history_is_refused(history):
    with pytest.raises(ValueError, match="no training history"):
        training_curves_figure(history)


@given(st.lists(st.floats(0, 1), max_size=8).map(sorted))
def test_spread_keeps_order_and_mean_and_makes_room(heights):
    places = _spread(heights)
    assert all(b - a > 0.9 * LABEL_GAP for a, b in pairwise(places))
    np.testing.assert_allclose(sum(places), sum(heights), atol=1e-9)
    if all(b - a >= LABEL_GAP for a, b in pairwise(heights)):
        assert places == heights


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")]
)
def test_the_suffix_is_the_format(tmp_path, suffix, start):
    save_figure(Figure((1, 1)), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["a.jpg", "a", "", "a.png/"])
def test_paths_that_name_no_figure_are_refused(tmp_path, name):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match=r"names no figure|is a folder"):
        save_figure(Figure((1, 1)), f"{tmp_path}/{name}")
    assert [*tmp_path.iterdir()] == [tmp_path / "a.png"]
