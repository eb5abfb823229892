"""Formats of data sets: which fields make a record or a conversation, and what is trained of it.

============== =================================================== ==============================
name           fields                                              trained
============== =================================================== ==============================
input/target   ``input``, ``target``                               the target
text           ``text``                                            every token
messages       ``messages``, perhaps ``tools``                     all that the assistant says
prompt/compl.  ``prompt``, ``completion``: texts or messages       the completion
Alpaca         ``instruction``, ``output``, perhaps ``input``      the output
ShareGPT       ``conversations``: ``from`` and ``value``           all that the assistant says
============== =================================================== ==============================

``important`` stands in the messages of a conversation, and beside the fields of the others.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cat_jax.data.columns import Columns, shown_names
from cat_jax.data.conversations import Conversation, TrainingRecord
from cat_jax.data.messages import NAMES, parse_messages
from cat_jax.data.readers.json_items import parse_json
from cat_jax.data.readers.tables import Cells
from cat_jax.data.records import parse_record, parse_text, present
from cat_jax.data.tools import json_values, parse_tools
from cat_jax.errors import InputError

IMPORTANT = "important"
TEMPLATE_OPTIONS = "chat_template_kwargs"
"""Field with the template options of one conversation, as TRL names it."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
"""Prompts of the published data set (tatsu-lab/alpaca, field ``text``)."""

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


@dataclass(frozen=True)
class Format:
    """A format of a data set.

    Attributes:
        name: Name in messages.
        fields: Fields that every record has.
        parse: Makes a record of fields and their place.
        optional: Fields that a record may have besides, and ``important``.
    """

    name: str
    fields: tuple[str, ...]
    parse: Callable[[Mapping[str, Any], str], TrainingRecord]
    optional: tuple[str, ...] = ()

    @property
    def known(self) -> set[str]:
        """Names of all fields."""
        return {*self.fields, *self.optional, IMPORTANT}


def parse_items(
    items: Iterable[tuple[str, Any]], columns: Mapping[str, str] | None = None
) -> Iterator[TrainingRecord]:
    """Yield the records and conversations that items of one format describe.

    Args:
        items: Place and item: a mapping, of which a field that is None is missing, or a record or
            conversation, which is yielded as it is.
        columns: Name of the column for each field of a format that is called otherwise.

    Raises:
        InputError: An item of no format, of another format than the first, or of a bad form.
    """
    mapped = Columns(columns or {}, frozenset().union(*(format.known for format in FORMATS)))
    first: tuple[Format, str] | None = None
    where = "the data set"
    for where, item in items:
        if isinstance(item, TrainingRecord):
            yield item
            continue
        if not isinstance(item, Mapping):
            raise InputError(
                f"{where}: expected a dict such as {{'input': .., 'target': ..}}, "
                f"not {type(item).__name__}"
            )
        fields = mapped.rename(present(item))
        try:
            format = find_format(fields, where, mapped.fields)
        except InputError:
            mapped.check_found(where)
            raise
        if isinstance(item, Cells):
            fields = _parse_cells(fields, format, where)
        record = format.parse(fields, where)
        first = first or (format, where)
        if format is not first[0]:
            raise InputError(
                f"{where}: has the format {format.name}, but {first[1]} has {first[0].name}; "
                "a data set has one format, so write all records in one, or make two files"
            )
        yield record
    mapped.check_found(where)


def _parse_cells(cells: Mapping[str, str], format: Format, where: str) -> dict[str, Any]:
    """Parse the cells of a table that hold lists and objects."""
    return {
        name: parse_json(cell, f"{where}, field {name!r}", "write the list or object as JSON")
        if name in STRUCTURED & format.known
        else cell
        for name, cell in cells.items()
    }


def find_format(fields: Mapping[str, Any], where: str, chosen: Iterable[str] = ()) -> Format:
    """Return the format that has these fields.

    Args:
        fields: Fields that are not None.
        where: Their place, for messages.
        chosen: Fields that columns name. If they are all fields of one format, it is that one,
            whatever other fields there are.

    Raises:
        InputError: No format has these fields, several do, or one is missing or misspelt.
    """
    known = fields.keys() & REQUIRED
    found = [format for format in FORMATS if {*format.fields} <= known & {*chosen}] or [
        format for format in FORMATS if {*format.fields} <= known <= format.known
    ]
    if len(found) == 1:
        _check_spelling(fields, found[0].known, where)
        return found[0]
    _check_spelling(fields, REQUIRED | {IMPORTANT}, where)
    touched = [format for format in FORMATS if known & {*format.fields}]
    if not touched:
        raise InputError(
            f"{where}: no format known here; the fields are {shown_names(fields) or 'none'}; there "
            f"are {', '.join(format.name for format in FORMATS)}; name the columns of one of them"
        )
    whole = [format for format in touched if known <= format.known]
    if len(whole) == 1 and not found:
        missing = next(name for name in whole[0].fields if name not in fields)
        raise InputError(f"{where}, field {missing!r}: missing; add it")
    raise InputError(
        f"{where}: has fields of the formats {' and '.join(format.name for format in touched)}; "
        "keep those of one, or name its columns"
    )


def _check_spelling(fields: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    absent = sorted({*known} - fields.keys())
    for name in map(str, fields.keys() - ALL_KNOWN):
        near = difflib.get_close_matches(name, absent, n=1, cutoff=0.8)
        if near:
            raise InputError(f"{where}: unknown field {name!r}; did you mean {near[0]!r}?")


def _record(
    prompt: str, target: str, fields: Mapping[str, Any], name: str, where: str
) -> TrainingRecord:
    """Build a record whose target was in the field ``name``."""
    if not target:
        raise InputError(f"{where}, field {name!r}: empty, so there is nothing to train")
    important = {IMPORTANT: fields[IMPORTANT]} if IMPORTANT in fields else {}
    return parse_record({"input": prompt, "target": target} | important, where)


def _parse_pair(first: str, second: str) -> Callable[[Mapping[str, Any], str], TrainingRecord]:
    def parse(fields: Mapping[str, Any], where: str) -> TrainingRecord:
        prompt, target = (parse_text(fields, name, where) for name in (first, second))
        return _record(prompt, target, fields, second, where)

    return parse


def _parse_text(fields: Mapping[str, Any], where: str) -> TrainingRecord:
    return _record("", parse_text(fields, "text", where), fields, "text", where)


def _parse_alpaca(fields: Mapping[str, Any], where: str) -> TrainingRecord:
    for name in ("system", "history"):  # of derived formats; they would change the prompt
        if fields.get(name):
            raise InputError(
                f"{where}, field {name!r}: has no place in the format Alpaca; remove it"
            )
    names = [name for name in ("instruction", "input", "output") if name in fields]
    texts = {name: parse_text(fields, name, where) for name in names}
    prompt = ALPACA_WITH_INPUT if texts.get("input") else ALPACA
    return _record(prompt.format(**texts), texts["output"], fields, "output", where)


def _parse_prompt_completion(fields: Mapping[str, Any], where: str) -> TrainingRecord:
    names = ("prompt", "completion")
    lists = [name for name in names if isinstance(fields[name], list | tuple)]
    if not lists:
        return _parse_pair(*names)(fields, where)
    if len(lists) == 1:
        raise InputError(
            f"{where}, field {lists[0]!r}: is a list of messages, and the other field is none; "
            "write 'prompt' and 'completion' both as text or both as messages"
        )
    messages = [*fields["prompt"], *fields["completion"]]
    parsed = [
        replace(message, train=message.train and number >= len(fields["prompt"]))
        for number, message in enumerate(parse_messages(messages, where))
    ]
    return _conversation(parsed, fields, where)


def _parse_messages(
    field: str,
    names: tuple[str, str] = NAMES,
    roles: Mapping[str, str] | None = None,
) -> Callable[[Mapping[str, Any], str], TrainingRecord]:
    def parse(fields: Mapping[str, Any], where: str) -> TrainingRecord:
        messages = fields[field]
        if not isinstance(messages, list | tuple):
            raise InputError(f"{where}, field {field!r}: must be a list of messages")
        if roles is not None and fields.get("system"):
            system = parse_text(fields, "system", where)
            messages = [dict(zip(names, ("system", system), strict=True)), *messages]
        return _conversation(
            parse_messages(messages, where, names=names, roles=roles), fields, where
        )

    return parse


def _conversation(messages: Iterable[Any], fields: Mapping[str, Any], where: str) -> Conversation:
    if IMPORTANT in fields:
        raise InputError(
            f"{where}, field 'important': annotations of a conversation belong in the message "
            "whose words they explain"
        )
    said = tuple(messages)
    tools = parse_tools(fields.get("tools", ()), where)
    options = json_values(fields.get(TEMPLATE_OPTIONS, {}), f"{where}, field {TEMPLATE_OPTIONS!r}")
    if not isinstance(options, Mapping):
        raise InputError(f"{where}, field {TEMPLATE_OPTIONS!r}: must be an object")
    try:
        return Conversation(said, where, tools=tools, template_options=options)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


CHAT = ("tools", TEMPLATE_OPTIONS)
STRUCTURED = {IMPORTANT, "messages", "conversations", *CHAT}
"""Fields that are lists or objects."""
FORMATS = (
    Format("input/target", ("input", "target"), _parse_pair("input", "target")),
    Format("text", ("text",), _parse_text),
    Format("messages", ("messages",), _parse_messages("messages"), CHAT),
    Format("prompt/completion", ("prompt", "completion"), _parse_prompt_completion, CHAT),
    Format("Alpaca", ("instruction", "output"), _parse_alpaca, ("input",)),
    Format(
        "ShareGPT",
        ("conversations",),
        _parse_messages("conversations", ("from", "value"), SHAREGPT_ROLES),
        ("system", *CHAT),
    ),
)
REQUIRED = frozenset(name for format in FORMATS for name in format.fields)
ALL_KNOWN = frozenset().union(*(format.known for format in FORMATS))
