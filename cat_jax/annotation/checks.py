"""From the words that an annotator names to their places, checked by meaning.

An annotation is accepted when each of its spans stands in the text, causes before their effect,
kinds and edges are those of the prior's graph, and the answer is among the effects. Of the edges
that CAT (Han et al., EMNLP 2025) published, 7 to 20 % do not stand in the text in this order.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cat_jax.annotation.reply import Dependency, Reply, Words
from cat_jax.data.matching import find_span
from cat_jax.data.records import Annotation, Record, Span

if TYPE_CHECKING:
    from cat_jax.annotation.prior import Prior


class InvalidReply(ValueError):
    """An annotation that cannot be accepted.

    Attributes:
        reasons: What is wrong with it, a sentence each, fit to be handed to the annotator.
    """

    def __init__(self, reasons: list[str]):
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def locate(reply: Reply, record: Record, prior: "Prior") -> tuple[Annotation, ...]:
    """Return the annotations of a reply, each span at its character offset in ``record.text``.

    Args:
        reply: What the annotator said.
        record: The record; annotations that it has are ignored.
        prior: Kinds and edges.

    Raises:
        InvalidReply: The reply breaks a rule; all that is wrong is named.
    """
    reasons: list[str] = []
    annotations = []
    for dependency in reply.annotations:
        reasons += _graph_errors(dependency, prior)
        effect = _place(dependency.effect, record, prior, reasons)
        causes = [_place(cause, record, prior, reasons) for cause in dependency.causes]
        if effect is None or None in causes:
            continue
        known = [cause for cause in causes if cause is not None]
        reasons += _order_errors(dependency, effect, known)
        annotations.append(
            Annotation(_span(record, effect), tuple(_span(record, c) for c in known))
        )
    if not any(dependency.effect.kind == prior.answer for dependency in reply.annotations):
        reasons.append(f"no effect is the {prior.answer}; name what {record.target!r} depends on")
    if reasons:
        raise InvalidReply(list(dict.fromkeys(reasons)))
    return tuple(annotations)


def _graph_errors(dependency: Dependency, prior: "Prior") -> Iterator[str]:
    spans = dependency.effect, *dependency.causes
    for span in spans:
        if span.kind not in prior.kinds:
            yield (
                f"there is no kind {span.kind!r} ({span.text!r}); the kinds are "
                f"{', '.join(prior.kinds)}"
            )
    if any(span.kind not in prior.kinds for span in spans):
        return
    for cause in dependency.causes:
        edge = cause.kind, dependency.effect.kind
        if edge not in prior.edges:
            yield (
                f"{edge[0]} -> {edge[1]} is no edge of the graph ({cause.text!r} of "
                f"{dependency.effect.text!r})"
            )


def _place(words: Words, record: Record, prior: "Prior", reasons: list[str]) -> range | None:
    """Return where words stand, or None and the reason why that is not known."""
    found = find_span(record.text, Span(words.text))
    where = "the text"
    if words.kind == prior.answer:
        start = len(record.input)
        found = [place for place in found if place.stop > start]
        where = "the answer"
    if not found:
        reasons.append(f"{words.text!r} does not stand in {where}; copy the words as they stand")
    elif words.occurrence is None and len(found) > 1:
        reasons.append(
            f"{words.text!r} stands {len(found)} times in {where}; name the occurrence, from 1"
        )
    elif (words.occurrence or 1) > len(found):
        reasons.append(
            f"{words.text!r} has no occurrence {words.occurrence} in {where}, which has it "
            f"{len(found)} time{'s' if len(found) > 1 else ''}"
        )
    else:
        return found[(words.occurrence or 1) - 1]
    return None


def _order_errors(dependency: Dependency, effect: range, causes: list[range]) -> Iterator[str]:
    for cause, place in zip(dependency.causes, causes, strict=True):
        if place.stop > effect.start:
            yield (
                f"the cause {cause.text!r} does not stand before its effect "
                f"{dependency.effect.text!r}"
            )


def _span(record: Record, place: range) -> Span:
    return Span(record.text[place.start : place.stop], place.start)
