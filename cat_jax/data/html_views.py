"""Records and examples as small pieces of a page, for notebooks. All text is escaped."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cat_jax.data.bitset import decode
from cat_jax.data.matching import find_span

if TYPE_CHECKING:
    from cat_jax.data.alignment import Example
    from cat_jax.data.records import Annotation, Record

MOST_CHARACTERS, MOST_TOKENS, MOST_LINES = 2_000, 256, 12
BOX = 'style="max-width:60rem;line-height:1.6"'
TEXT = 'style="white-space:pre-wrap;overflow-wrap:anywhere;font-family:ui-monospace,monospace"'
CAUSE = 'style="background:rgb(0 114 178/.3)"'
TRAINED = 'style="font-weight:700;text-decoration:underline"'


def record_html(record: "Record") -> str:
    """Return the text with the answer underlined and causes shaded, and what depends on what."""
    is_cause = np.zeros(len(record.text), bool)
    for annotation in record.important:
        for cause in annotation.causes:
            for place in find_span(record.text, cause):
                is_cause[place.start : place.stop] = True
    is_answer = np.arange(len(record.text)) >= len(record.input)
    body = _runs(record.text, is_cause, is_answer)
    where = f"<div>{escape(record.where)}</div>" if record.where else ""
    notes = [_dependence(annotation) for annotation in record.important[:MOST_LINES]]
    if len(record.important) > MOST_LINES:
        notes.append(f"<li>… {len(record.important) - MOST_LINES} more</li>")
    listed = f"<ul>{''.join(notes)}</ul>" if notes else ""
    return f"<div {BOX}>{where}<div {TEXT}>{body}</div>{listed}</div>"


def example_html(example: "Example") -> str:
    """Return the token ids, those that are trained underlined and causes shaded, and counts."""
    is_cause = np.asarray(decode(example.q_bits, example.k_bits).any(0), bool)
    words = [f"{token} " for token in example.tokens.tolist()]
    shown = min(len(words), MOST_TOKENS)
    ids = "".join(
        _marked(words[n], bool(is_cause[n]), bool(example.target_mask[n])) for n in range(shown)
    )
    more = f"… {len(words) - shown} more" if len(words) > shown else ""
    facts = {
        "tokens": len(words),
        "trained": int(example.target_mask.sum()),
        "annotated queries": int((example.causal_count > 0).sum()),
        "causal keys": int(is_cause.sum()),
    }
    if example.segment_ids is not None:
        facts["records"] = len(set(example.segment_ids.tolist()) - {0})
    rows = "".join(f"<tr><td>{name}</td><td>{value:,}</td></tr>" for name, value in facts.items())
    return f"<div {BOX}><table>{rows}</table><div {TEXT}>{ids}{more}</div></div>"


def _runs(text: str, is_cause: np.ndarray, is_answer: np.ndarray) -> str:
    """Return the text in pieces of one look each; of a long prompt the middle is left out."""
    look = is_cause + 2 * is_answer
    borders = [0, *(np.flatnonzero(np.diff(look)) + 1).tolist(), len(text)]
    half = MOST_CHARACTERS // 2
    parts: Sequence[str] = [
        _marked(_short(text[a:b], half), bool(look[a] & 1), bool(look[a] & 2))
        for a, b in pairwise(borders)
        if b > a
    ]
    return "".join(parts)


def _short(text: str, half: int) -> str:
    if len(text) <= 2 * half:
        return text
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"


def _marked(text: str, is_cause: bool, is_trained: bool) -> str:
    marked = escape(text)
    if is_cause:
        marked = f"<span {CAUSE}>{marked}</span>"
    return f"<span {TRAINED}>{marked}</span>" if is_trained else marked


def _dependence(annotation: "Annotation") -> str:
    causes = ", ".join(f"<code {CAUSE}>{escape(x.text)}</code>" for x in annotation.causes)
    return f"<li><code>{escape(annotation.effect.text)}</code> depends on {causes}</li>"
