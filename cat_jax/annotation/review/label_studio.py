"""Label Studio's files: tasks with annotations to correct, and what people made of them.

Label Studio has counted the offsets of text in UTF-16 units and, in other versions, in code points
(its issues 539, 1008, 1347). Both are read, told apart by the words that stand beside the offsets.
Format: https://labelstud.io/guide/predictions and https://labelstud.io/guide/task_format.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from os import PathLike
from typing import Any, Literal

from etils import epath

from cat_jax.annotation.annotate import Annotated
from cat_jax.annotation.drawing import kind_colours
from cat_jax.annotation.opinions import Edge, Place
from cat_jax.annotation.prior import Prior
from cat_jax.annotation.review.items import ReviewItem, as_items
from cat_jax.annotation.review.page import item_data
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.files import one_line, write_text

Offsets = Literal["utf-16", "code points"]


def label_studio_config(prior: Prior) -> str:
    """Return the labelling configuration: a label for each kind, and relations."""
    labels = "".join(
        f'    <Label value="{escape(kind)}" background="{colour}"/>\n'
        for kind, colour in kind_colours(prior).items()
    )
    return (
        f'<View>\n  <Labels name="kind" toName="text">\n{labels}  </Labels>\n'
        '  <Relations>\n    <Relation value="cause of"/>\n  </Relations>\n'
        '  <Text name="text" value="$text" granularity="word"/>\n</View>\n'
    )


def write_label_studio(
    path: str | PathLike[str],
    items: Iterable[Any] | Annotated,
    prior: Prior,
    *,
    offsets: Offsets = "utf-16",
) -> None:
    """Write tasks to import into Label Studio, and beside them the labelling configuration.

    Annotations are predictions, relations lead from a cause to its effect.

    Args:
        path: JSON file of tasks; the configuration is PATH.xml.
        items: What ``read_review_items`` or ``annotate`` returns, or annotated records.
        prior: Kinds of spans.
        offsets: How the version of Label Studio counts.

    Raises:
        InputError: A record is a conversation.
    """
    tasks = [_task(item, prior, offsets) for item in as_items(items, prior)]
    write_text(path, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    write_text(f"{path}.xml", label_studio_config(prior))


def read_label_studio(path: str | PathLike[str], prior: Prior) -> list[Record]:
    """Read what was annotated in Label Studio (export as JSON).

    Tasks that were skipped or have no annotation are left out; of several annotations of a task the
    last counts.

    Args:
        path: JSON file.
        prior: Rules that annotations are checked by.

    Raises:
        InputError: The file is no export, or an annotation breaks a rule; its task is named.
    """
    try:
        tasks = json.loads(epath.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{path} is no export of Label Studio; export as JSON")
    return [
        record
        for number, task in enumerate(tasks, 1)
        for record in _records(task, prior, f"{path}, task {task.get('id', number)}")
    ]


def _task(item: ReviewItem, prior: Prior, offsets: Offsets) -> dict[str, Any]:
    data = item_data(item, prior)
    kinds = {(start, stop): kind for start, stop, kind in data["kinds"]}
    named = sorted({place for edge in item.edges for place in edge})
    ids = {place: f"span{number}" for number, place in enumerate(named)}
    result = [
        {
            "id": ids[place],
            "from_name": "kind",
            "to_name": "text",
            "type": "labels",
            "value": {
                "start": _out(item.text, place[0], offsets),
                "end": _out(item.text, place[1], offsets),
                "text": item.text[slice(*place)],
                "labels": [kinds[place]],
            },
        }
        for place in named
    ]
    result += [
        {
            "type": "relation",
            "from_id": ids[cause],
            "to_id": ids[effect],
            "direction": "right",
            "labels": ["cause of"],
        }
        for effect, cause in sorted(item.edges)
    ]
    return {
        "data": {
            "text": item.text,
            "input": item.record.input,
            "target": item.record.target,
            "reasons": "; ".join(item.reasons),
        },
        "predictions": [{"score": item.agreement, "result": result}],
    }


def _out(text: str, offset: int, offsets: Offsets) -> int:
    return offset if offsets == "code points" else len(text[:offset].encode("utf-16-le")) // 2


def _records(task: Mapping[str, Any], prior: Prior, where: str) -> Iterator[Record]:
    done = [x for x in task.get("annotations") or () if not x.get("was_cancelled")]
    if not done:
        return
    data = task.get("data") or {}
    if not all(isinstance(data.get(name), str) for name in ("input", "target")):
        raise InputError(f"{where}: has no input and target; import what write_label_studio wrote")
    record = Record(data["input"], data["target"])
    places, kinds = _spans(done[-1].get("result") or (), record.text, where)
    edges = sorted(_relations(done[-1].get("result") or (), places, where))
    _check(record, edges, kinds, prior, where)
    effects = dict.fromkeys(effect for effect, _ in edges)

    def span(place: Place) -> Span:
        return Span(record.text[slice(*place)], place[0])

    yield Record(
        record.input,
        record.target,
        tuple(
            Annotation(span(effect), tuple(span(cause) for e, cause in edges if e == effect))
            for effect in effects
        ),
        where=where,
    )


def _spans(
    result: Iterable[Mapping[str, Any]], text: str, where: str
) -> tuple[dict[str, Place], dict[Place, str]]:
    places, kinds = {}, {}
    for part in result:
        if part.get("type") == "labels":
            value = part["value"]
            places[part["id"]] = place = _place(value, text, where)
            kinds[place] = value["labels"][0]
    return places, kinds


def _place(value: Mapping[str, Any], text: str, where: str) -> Place:
    """Return a place in code points; the words beside the offsets tell how they count."""
    start, stop, words = int(value["start"]), int(value["end"]), value.get("text")
    wide = text.encode("utf-16-le")
    try:
        first = len(wide[: 2 * start].decode("utf-16-le"))
        narrow = first, first + len(wide[2 * start : 2 * stop].decode("utf-16-le"))
    except UnicodeDecodeError:  # inside a pair: these count code points
        narrow = None
    found = [place for place in (narrow, (start, stop)) if place and text[slice(*place)] == words]
    if not found:
        raise InputError(f"{where}: {words!r} does not stand at {start} to {stop}; mark it again")
    return found[0]


def _relations(
    result: Iterable[Mapping[str, Any]], places: Mapping[str, Place], where: str
) -> Iterator[Edge]:
    for part in result:
        if part.get("type") != "relation":
            continue
        ends = [places.get(part.get(name, "")) for name in ("from_id", "to_id")]
        if part.get("direction") == "left":
            ends.reverse()
        cause, effect = ends
        if cause is None or effect is None:
            raise InputError(f"{where}: a relation has an end that is no label; draw it again")
        yield effect, cause


def _check(
    record: Record, edges: list[Edge], kinds: Mapping[Place, str], prior: Prior, where: str
) -> None:
    """Raise InputError if an annotation breaks a rule of ``cat_jax.annotation.checks``."""
    for effect, cause in edges:
        words = [record.text[slice(*place)] for place in (cause, effect)]
        pair = kinds[cause], kinds[effect]
        if pair not in prior.edges:
            raise InputError(
                f"{where}: {pair[0]} -> {pair[1]} is no edge of the graph "
                f"({words[0]!r} of {words[1]!r}); correct it in Label Studio and export again"
            )
        if cause[1] > effect[0]:
            raise InputError(
                f"{where}: the cause {words[0]!r} does not stand before its effect {words[1]!r}; "
                "correct it in Label Studio and export again"
            )
    if not any(
        kinds[effect] == prior.answer and effect[1] > len(record.input) for effect, _ in edges
    ):
        raise InputError(
            f"{where}: no effect is the {prior.answer}; relate what {record.target!r} depends on"
        )
