"""Messages of conversations as fields of JSON objects: reading and writing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cat_jax.data.conversations import TRAINED_ROLE, Message
from cat_jax.data.records import important_field, parse_annotations, parse_text, present
from cat_jax.data.tools import parse_tool_calls
from cat_jax.errors import InputError

NAMES = ("role", "content")
TEXTS = ("reasoning_content", "name", "tool_call_id")
"""Fields of text besides role and content, handed to the template."""
OTHERS = ("important", "tool_calls", "train", "weight", *TEXTS)

TRAINED = {
    "train": {"True": True, "False": False},
    "weight": {"1": True, "1.0": True, "0": False, "0.0": False},
}
SPELT = {"train": "true or false", "weight": "0 or 1"}


def parse_messages(
    messages: Sequence[Any],
    where: str,
    *,
    names: tuple[str, str] = NAMES,
    roles: Mapping[str, str] | None = None,
) -> Iterator[Message]:
    """Yield messages.

    Args:
        messages: Objects with a role and content, and perhaps ``important``, ``tool_calls``,
            ``reasoning_content``, ``name``, ``tool_call_id``, and ``train`` or ``weight``.
        where: Place of the conversation, for error messages.
        names: Names of the fields of role and content.
        roles: Role of each name of a role; None takes names as they are.

    Raises:
        InputError: A message of another form.
    """
    for number, message in enumerate(messages):
        place = f"{where}, message {number}"
        if not isinstance(message, Mapping):
            raise InputError(f"{place}: expected an object with {names[0]!r} and {names[1]!r}")
        fields = present(message)
        unknown = sorted(map(str, fields.keys() - {*names, *OTHERS}))
        if unknown:  # training as if it were not there is something else
            raise InputError(f"{place}, field {unknown[0]!r}: has no use here; remove it")
        role = parse_text(fields, names[0], place)
        if roles is not None:
            role = _role(role, roles, f"{place}, field {names[0]!r}")
        calls = parse_tool_calls(fields.get("tool_calls", ()), place)
        if calls and role != TRAINED_ROLE:
            raise InputError(
                f"{place}, field 'tool_calls': only messages of the assistant call tools"
            )
        yield Message(
            role,
            _content(fields, names[1], place, may_be_missing=bool(calls)),
            parse_annotations(fields, place),
            tool_calls=calls,
            train=_is_trained(fields, role, place),
            **{name: parse_text(fields, name, place) for name in TEXTS if name in fields},
        )


def message_fields(message: Message) -> dict[str, Any]:
    """Return the fields that ``parse_messages`` reads."""
    trained = {} if message.train else {"train": False}
    return template_message(message) | important_field(message.important) | trained


def template_message(message: Message) -> dict[str, Any]:
    """Return the fields that a chat template is given."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = list(message.tool_calls)
    return fields | present({name: getattr(message, name) for name in TEXTS})


def _role(name: str, roles: Mapping[str, str], where: str) -> str:
    if name not in roles:
        raise InputError(f"{where}: {name!r} is no role here; there are {', '.join(roles)}")
    return roles[name]


def _content(fields: Mapping[str, Any], name: str, where: str, *, may_be_missing: bool) -> str:
    """Return the text of a content, of whose parts only text is read."""
    if may_be_missing and name not in fields:
        return ""
    parts = fields.get(name)
    if not isinstance(parts, list | tuple) or not parts:
        return parse_text(fields, name, where)
    return "".join(_part(part, f"{where}, field {name!r}") for part in parts)


def _part(part: Any, where: str) -> str:
    if not isinstance(part, Mapping):
        raise InputError(
            f"{where}: a part must be an object such as {{'type': 'text', 'text': ..}}"
        )
    kind = part.get("type")
    if kind != "text":
        raise InputError(f"{where}: a part has the type {kind!r}; only 'text' is read")
    return parse_text(present(part), "text", where)


def _is_trained(fields: Mapping[str, Any], role: str, where: str) -> bool:
    """Tell whether a message is trained, if it is the assistant's.

    ``weight`` is 0 or 1, as in the fine-tuning format of OpenAI.
    """
    given = [name for name in ("train", "weight") if name in fields]
    if not given:
        return True
    if len(given) == 2:
        raise InputError(f"{where}: 'train' and 'weight' say the same; remove one")
    (name,) = given
    value = fields[name]
    if isinstance(value, bool) != (name == "train") or str(value) not in TRAINED[name]:
        raise InputError(
            f"{where}, field {name!r}: must be {SPELT[name]}, not {value!r}; other values have no "
            "meaning here"
        )
    trained = TRAINED[name][str(value)]
    if trained and role != TRAINED_ROLE:
        raise InputError(
            f"{where}, field {name!r}: only messages of the assistant are trained; remove it"
        )
    return trained
