"""What an assistant is asked: the prior in words, its examples as turns, then the record."""

import json
from collections.abc import Sequence

from cat_jax.annotation.prior import Prior
from cat_jax.annotation.reply import Reply
from cat_jax.data.records import Record

Message = dict[str, str]

RULES = """\
You mark which words of a text depend on which others.

Task: {task}

Kinds of words:
{kinds}

Dependencies, cause -> effect:
{edges}

Rules:
- Copy words exactly as they stand in the text, as few as say it, whole words only.
- A cause stands before its effect.
- One of the effects is the {answer}, which stands in "target".
- Use the kinds and dependencies above and no others.
- Where words stand several times in input + target, give "occurrence", counted from 1; for the \
{answer}, counted in the target.

Reply with JSON alone:
{{"annotations": [{{"effect": {{"text": "...", "kind": "..."}}, "causes": [{{"text": "...", \
"kind": "..."}}]}}]}}"""


def first_messages(prior: Prior, record: Record) -> list[Message]:
    """Return the messages that ask for the annotation of a record."""
    kinds = "\n".join(f"- {kind}: {sentence}" for kind, sentence in prior.kinds.items())
    edges = "\n".join(f"- {cause} -> {effect}" for cause, effect in prior.edges)
    rules = RULES.format(task=prior.task, kinds=kinds, edges=edges, answer=prior.answer)
    messages = [{"role": "system", "content": rules}]
    for example, reply in prior.examples:
        messages.append({"role": "user", "content": _shown(example)})
        messages.append({"role": "assistant", "content": _json(reply)})
    return [*messages, {"role": "user", "content": _shown(record)}]


def again(messages: Sequence[Message], reply: str, reasons: Sequence[str]) -> list[Message]:
    """Return the messages that ask once more, with what was wrong with the reply."""
    wrong = "\n".join(f"- {reason}" for reason in reasons)
    return [
        *messages,
        {"role": "assistant", "content": reply},
        {"role": "user", "content": f"This cannot be used:\n{wrong}\nReply again, with all of it."},
    ]


def _shown(record: Record) -> str:
    return json.dumps({"input": record.input, "target": record.target}, ensure_ascii=False)


def _json(reply: Reply) -> str:
    return reply.model_dump_json(exclude_none=True)
