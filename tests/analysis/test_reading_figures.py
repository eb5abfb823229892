"""What figures of attention draw, read back from matplotlib and compared with the arrays."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import cat_jax as cat
from cat_jax.analysis import (
    attention_curves_figure,
    attention_figure,
    attention_shares,
    head_scores,
    leak_figure,
    mass_change_figure,
)
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.testing import ToyTask, toy_model

TOY, OTHER = (toy_model(seed, num_layers=3, num_heads=4, num_kv_heads=2) for seed in (0, 1))
RECORD = Record("a=$3$ b=4 a is ", "33", (Annotation(Span("33", 15), (Span("$3$", 2),)),))
TASK = ToyTask(train_records=20, test_records=4)


def read(model, record=RECORD, **options):
    return cat.read_attention(
        model.model, model.params, model.tokenizer, record, spurious=["b=4"], **options
    )


def rendered(figure):
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def heatmaps(figure):
    return [axis for axis in figure.axes if axis.images]


def frames(axis):
    """First and last column of each frame, by its colour."""
    found = {}
    for patch in axis.patches:
        assert isinstance(patch, Rectangle)
        left = patch.get_x()
        columns = round(left), round(left + patch.get_width())
        found.setdefault(to_hex(patch.get_edgecolor()), []).append(columns)
    return found


def test_both_models_are_drawn_one_under_the_other():
    maps = {"plain": read(TOY), "CAT $x$": read(OTHER)}
    figure = attention_figure(maps, title="where $x$ it looks")
    panels = heatmaps(figure)
    assert [axis.get_title(loc="left") for axis in panels] == ["plain", "CAT $x$"]
    for axis, one in zip(panels, maps.values(), strict=True):
        (image,) = axis.images
        expected = one.values.mean((0, 1))[[14, 15], :16]
        np.testing.assert_allclose(np.asarray(image.get_array()), expected, atol=1e-6)
        assert [x.get_text() for x in axis.get_yticklabels()] == ["→ 3", "→ 3"]
        assert frames(axis) == {"#0072b2": [(2, 4)], "#d55e00": [(6, 8)]}
    limits = [axis.images[0].get_clim() for axis in panels]
    top = max(axis.images[0].get_array()[:, 1:].max() for axis in panels)
    assert limits == [(0, pytest.approx(top))] * 2
    labels = panels[1].get_xticklabels()
    assert "".join(x.get_text() for x in labels) == "a=$3$␣b=4␣a␣is␣3"
    assert not panels[0].get_xticklabels()
    assert len(rendered(figure)) > 10_000


def test_views_and_chosen_queries_are_drawn():
    maps = {"head": read(TOY).layer(1).head(2)}
    (axis,) = heatmaps(attention_figure(maps, answer=[9, 3]))
    expected = read(TOY).values[1, 2, [3, 9], :10]
    np.testing.assert_allclose(np.asarray(axis.images[0].get_array()), expected, atol=1e-6)


def test_long_texts_are_folded():
    text = "a=3 " + "x" * 100 + " is "
    record = Record(text, "3", (Annotation(Span("3", len(text)), (Span("3", 2),)),))
    figure = attention_figure({"one": cat.read_attention(
        TOY.model, TOY.params, TOY.tokenizer, record)})  # fmt: skip
    panels = heatmaps(figure)
    assert [axis.images[0].get_array().shape for axis in panels] == [(1, 48), (1, 48), (1, 12)]
    assert {axis.get_xlim() for axis in panels} == {(-0.5, 47.5)}
    assert len({axis.images[0].get_clim() for axis in panels}) == 1
    assert len(rendered(figure)) > 10_000


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: attention_figure({}), "no maps"),
        (
            lambda: attention_figure({"a": read(TOY), "b": read(TOY, Record("b=4 ", "3"))}),
            "different texts",
        ),
        (lambda: attention_figure({"a": read(TOY).mean("keys")}), "needs the axes"),
        (
            lambda: attention_figure({"a": read(TOY, Record("b=4 " * 121, "3"), queries=[0])}),
            "holds 480 tokens, got 486",
        ),
        (lambda: mass_change_figure(np.zeros((2, 3)), np.zeros((3, 2))), r"before has shape \(2"),
        (lambda: attention_curves_figure({"a": [{"step": 1}]}), "attention_on_causes"),
    ],
)
def test_what_cannot_be_drawn_is_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_masses_before_and_after_and_their_difference():
    before, after = np.random.default_rng(0).random((2, 5, 3))
    figure = mass_change_figure(before, after, names=("plain", "CAT"))
    panels = heatmaps(figure)
    assert [x.get_title(loc="left") for x in panels] == ["plain", "CAT", "CAT − plain"]
    for axis, values in zip(panels, (before, after, after - before), strict=True):
        np.testing.assert_allclose(np.asarray(axis.images[0].get_array()), values)
    bars = [axis.get_ylim() for axis in figure.axes if not axis.images or axis not in panels]
    assert bars[0][0] == 0
    assert bars[2][0] == -bars[2][1]


def test_curves_are_what_training_measured():
    shares = attention_shares(TASK.records("ood"), TASK.spurious_spans)
    run = cat.fit(
        toy_model(),
        TASK.records("train"),
        train=cat.Training(steps=4, batch_size=4, eval_every=2),
        evaluators=[shares],
    )
    last = head_scores(run, TASK.records("ood"), spurious=TASK.spurious_spans, patterns={})
    lines = [x for x in run.history if "attention_on_causes" in x]
    assert [x["step"] for x in lines] == [0, 2, 4]
    assert lines[-1]["attention_on_causes"] == pytest.approx(last["causal"].mean())
    assert lines[-1]["attention_on_spurious_words"] == pytest.approx(last["spurious"].mean())
    (axis,) = attention_curves_figure({"plain": run.history}).axes
    solid, dashed = axis.lines
    names = "attention_on_causes", "attention_on_spurious_words"
    for line, name, style in zip((solid, dashed), names, ("-", "--"), strict=True):
        assert line.get_linestyle() == style
        np.testing.assert_allclose(line.get_ydata(), [x[name] for x in lines])
    written = " ".join(text.get_text() for text in axis.texts)
    assert "plain, causes" in written
    assert "plain, spurious words" in written


def test_leaks_are_the_answers_that_change():
    paths = cat.trace_spurious(TOY, TASK, TASK.records("ood"))
    (axis,) = heatmaps(leak_figure(paths))
    drawn = np.asarray(axis.images[0].get_array())
    assert drawn.shape == (4, 6)
    for column, found in enumerate(paths.knock_outs.values()):
        afters = [*(found.by_layer[n] for n in range(3)), found.together]
        changed = [(x.is_right != found.before.is_right).mean() for x in afters]
        np.testing.assert_allclose(drawn[:, column], changed)
    assert [x.get_text() for x in axis.get_yticklabels()] == ["0", "1", "2", "all"]
    assert axis.get_xticklabels()[1].get_text() == "spurious → causal"
