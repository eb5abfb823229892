"""Attention maps as a small piece of a page, for notebooks."""

from html import escape

import numpy as np

from cat_jax.analysis.attention.named import AttentionMaps
from cat_jax.errors import InputError

MOST_TOKENS, MOST_CELLS = 400, 2_000
KINDS = {"cause": "#0072B2", "effect": "#009E73", "spurious": "#D55E00"}
"""Underlines of tokens, in colours of Okabe & Ito (2008)."""

STYLE = """
.cat-attention { font: 14px/1.7 system-ui, sans-serif; max-width: 60rem; }
.cat-attention .text { white-space: pre-wrap; overflow-wrap: anywhere;
  font-family: ui-monospace, monospace; }
.cat-attention .text span { background: rgb(0 114 178 / var(--share)); }
.cat-attention td { background: rgb(0 114 178 / var(--share)); text-align: right; }
.cat-attention .below { background: rgb(213 94 0 / var(--share)); }
"""


def html_fragment(maps: AttentionMaps) -> str:
    """Return the tokens shaded by their attention or, where no keys are left, a table."""
    if maps.axes[-1:] == ("keys",):
        caption, body = _tokens(maps)
    else:
        caption, body = "", _table(maps)
    return (
        f'<style>{STYLE}</style><div class="cat-attention"><div>{escape(repr(maps))}'
        f"{escape(caption)}</div>{body}</div>"
    )


def _tokens(maps: AttentionMaps) -> tuple[str, str]:
    """Shade each token by the attention that the answer pays it, over all other axes."""
    caption = ""
    if "queries" in maps.axes:
        caption = ": from the answer"
        try:
            maps = maps.of_queries()
        except InputError:  # no answer, or not read
            caption = f": from query {maps.queries[-1]}"
            maps = maps.of_queries(int(maps.queries[-1]))
    shares_K = np.asarray(maps).reshape(-1, len(maps.tokens)).mean(0)
    top = max(float(np.abs(shares_K[1:]).max(initial=0.0)), 1e-9)  # the first may be a sink
    spans = [
        _span(token, kind, value, top)
        for token, kind, value in zip(maps.tokens, maps.kinds, shares_K, strict=True)
    ]
    half = MOST_TOKENS // 2
    if len(spans) > MOST_TOKENS:
        left_out = f" … {len(spans) - 2 * half} tokens … "
        spans = [*spans[:half], left_out, *spans[-half:]]
    return caption, f'<div class="text">{"".join(spans)}</div>'


def _span(token: str, kind: str, value: float, top: float) -> str:
    line = f";border-bottom:2px solid {KINDS[kind]}" if kind in KINDS else ""
    side = ' class="below"' if value < 0 else ""
    style = f"--share:{_share(value, top)}{line}"
    return f'<span{side} title="{value:.4g}, {kind}" style="{style}">{escape(token)}</span>'


def _table(maps: AttentionMaps) -> str:
    """Return the values by the last two axes that are left."""
    values = np.atleast_2d(np.asarray(maps))
    values = values.reshape(-1, values.shape[-1])
    if values.size > MOST_CELLS:
        return f"<div>{values.size:,} values: too many for a table; choose or average</div>"
    top = max(float(np.abs(values).max()), 1e-9)
    rows = "".join(f"<tr>{''.join(_cell(x, top) for x in row)}</tr>" for row in values)
    return f"<table>{rows}</table>"


def _cell(value: float, top: float) -> str:
    side = ' class="below"' if value < 0 else ""
    return f'<td{side} style="--share:{_share(value, top)}">{value:.3f}</td>'


def _share(value: float, top: float) -> str:
    return f"{min(abs(value) / top, 1.0) * 0.7:.2f}"
