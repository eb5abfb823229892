"""A prior for readers: its graph as SVG, its kinds and its examples in their colours."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import networkx

from cat_jax.annotation.reply import Reply
from cat_jax.data.records import Record

if TYPE_CHECKING:
    from cat_jax.annotation.prior import Prior

# Okabe and Ito's colours, told apart by the colour-blind, light enough for black text.
COLOURS = ("#f5c97a", "#8fd0f5", "#7fd3b9", "#f2b38c", "#e6b3d1", "#cfc7ff", "#e8e27a", "#cccccc")
WIDTH, HEIGHT, GAP, LINE = 130, 34, 70, 54
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def prior_page(prior: "Prior") -> str:
    """Return a page of its own, which loads nothing."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<title>Causal prior</title>"
        "<style>body{font:16px sans-serif;max-width:60em;margin:2em auto}"
        f"</style></head><body>{prior_fragment(prior)}</body></html>\n"
    )


def prior_fragment(prior: "Prior") -> str:
    """Return task, graph, kinds and examples as HTML, all text escaped."""
    colours = kind_colours(prior)
    kinds = "".join(
        f"<dt>{_marked(kind, colours[kind])}</dt><dd>{escape(sentence)}</dd>"
        for kind, sentence in prior.kinds.items()
    )
    examples = "".join(
        f'<p style="white-space:pre-wrap">{_coloured(reply, record, colours)}</p>'
        for (_, reply), record in zip(prior.examples, prior.records, strict=True)
    )
    return f"<p>{escape(prior.task)}</p>{graph_svg(prior)}<dl>{kinds}</dl>{examples}"


def kind_colours(prior: "Prior") -> dict[str, str]:
    """Return a colour for each kind; they repeat after eight."""
    return {kind: COLOURS[n % len(COLOURS)] for n, kind in enumerate(prior.kinds)}


def graph_svg(prior: "Prior") -> str:
    """Return the graph over the kinds as SVG, causes on the left."""
    graph = prior.graph
    graph.remove_edges_from(list(networkx.selfloop_edges(graph)))
    layers = list(networkx.topological_generations(graph))
    places = {
        kind: (10 + column * (WIDTH + GAP), 24 + row * LINE)
        for column, layer in enumerate(layers)
        for row, kind in enumerate(sorted(layer, key=list(prior.kinds).index))
    }
    width = 20 + len(layers) * (WIDTH + GAP) - GAP
    height = 24 + max(len(layer) for layer in layers) * LINE
    colours = kind_colours(prior)
    parts = [_edge(*places[cause], *places[effect]) for cause, effect in prior.edges]
    parts += [_node(kind, *place, colours[kind]) for kind, place in places.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        'font-family="sans-serif" font-size="14" role="img" aria-label="causal graph">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _node(kind: str, x: int, y: int, colour: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}" '
        f'stroke="black"/><text x="{x + WIDTH // 2}" y="{y + 22}" text-anchor="middle">'
        f"{escape(kind)}</text>"
    )


def _edge(x1: int, y1: int, x2: int, y2: int) -> str:
    if (x1, y1) == (x2, y2):  # of a kind to itself: a loop above it
        a, b = x1 + WIDTH // 2 - 20, x1 + WIDTH // 2 + 20
        path = f"M{a} {y1}C{a} {y1 - 24} {b} {y1 - 24} {b} {y1}"
    else:
        path = f"M{x1 + WIDTH} {y1 + HEIGHT // 2}L{x2} {y2 + HEIGHT // 2}"
    return f'<path d="{path}" fill="none" stroke="black" marker-end="url(#arrow)"/>'


def _coloured(reply: Reply, record: Record, colours: Mapping[str, str]) -> str:
    """Return the text of an example, each span in the colour of its kind."""
    spans = {}
    for dependency, note in zip(reply.annotations, record.important, strict=True):
        named = dependency.effect, *dependency.causes
        for words, span in zip(named, (note.effect, *note.causes), strict=True):
            if span.start is not None:
                spans[span.start, span.start + len(span.text)] = words.kind
    return _with_marks(record, spans, colours)


def _with_marks(
    record: Record, spans: Mapping[tuple[int, int], str], colours: Mapping[str, str]
) -> str:
    text, parts, place = record.text, [], 0
    for (start, stop), kind in sorted(spans.items()):
        if start < place:  # within the one before
            continue
        parts += [escape(text[place:start]), _marked(text[start:stop], colours[kind])]
        place = stop
    return "".join([*parts, escape(text[place:])])


def _marked(text: str, colour: str) -> str:
    return f'<span style="background:{colour};padding:0 2px">{escape(text)}</span>'
