"""Files of annotated and rejected records, which a run that was cut off goes on with."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from cat_jax.annotation.agreement import kinds_of
from cat_jax.annotation.annotate import Outcome
from cat_jax.annotation.opinions import place_of
from cat_jax.annotation.prior import Prior
from cat_jax.data.sources import training_record_fields
from cat_jax.errors import InputError


def outcome_fields(outcome: Outcome, prior: Prior) -> dict[str, Any]:
    """Return an outcome as a line of JSONL: the record's fields, and where they come from.

    The field ``annotation`` has the assistants' names, the digest of the prior, the number of
    attempts, the kind of each span and the agreement; a rejected record has ``reasons`` and
    ``reply`` besides. Places are of characters of input + target.
    """
    about: dict[str, Any] = {
        "model": ", ".join(dict.fromkeys(opinion.model for opinion in outcome.opinions)),
        "prior": prior.sha256,
        "attempts": outcome.attempts,
    }
    fields = training_record_fields(outcome.record) | {"annotation": about}
    if not outcome.accepted:
        fields |= {"reasons": list(outcome.reasons), "reply": outcome.reply}
    else:
        kept = {
            place_of(span)
            for annotation in outcome.record.important
            for span in (annotation.effect, *annotation.causes)
        }
        about["kinds"] = [
            {"start": start, "stop": stop, "kind": kind}
            for (start, stop), kind in kinds_of(outcome.opinions).items()
            if (start, stop) in kept
        ]
    if outcome.agreement is not None:
        about["agreement"] = {
            "opinions": outcome.agreement.opinions,
            "share": outcome.agreement.share,
            "edges": [
                {"effect": list(effect), "cause": list(cause), "share": share}
                for (effect, cause), share in outcome.agreement.shares.items()
            ],
        }
    return fields


class AnnotationFiles:
    """Writes outcomes to OUT, and those that were rejected to OUT.rejects.jsonl.

    What an earlier run wrote stays as long as it is what is written again; from the first
    difference on it is replaced. Leave the context by an error, and what lies behind stays too.

    Args:
        out: JSONL file of annotated records.
        prior: Prior that they were annotated by.

    Attributes:
        rejects: JSONL file of rejected records.
        cache: Folder for an ``AnswerCache``; it tells that ``out`` is of an annotation.
        counts: How many were accepted and rejected.

    Raises:
        InputError: The files cannot be written, or ``out`` is there and is not of an annotation.
    """

    def __init__(self, out: str | PathLike[str], prior: Prior):
        self.out = Path(out)
        self.rejects = self.out.with_name(f"{self.out.name}.rejects.jsonl")
        self.cache = self.out.with_name(f"{self.out.name}.cache")
        self.counts = [0, 0]
        self._prior = prior
        self._opened = ExitStack()
        if self.out.exists() and not self.cache.exists():
            raise InputError(
                f"{self.out} is there already and is not from here; choose another --out"
            )

    def __enter__(self) -> "AnnotationFiles":
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            self._files = [
                self._opened.enter_context(_GrowingFile(path)) for path in (self.out, self.rejects)
            ]
        except OSError as error:
            raise InputError(f"--out: cannot write {self.out} ({error.strerror})") from error
        return self

    def write(self, outcome: Outcome) -> None:
        """Write an outcome at once."""
        self._files[not outcome.accepted].write(outcome_fields(outcome, self._prior))
        self.counts[not outcome.accepted] += 1

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            for file in self._files:
                file.cut()
        self._opened.close()


class _GrowingFile:
    def __init__(self, path: Path):
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._is_known = True

    def __enter__(self) -> "_GrowingFile":
        return self

    def write(self, fields: Mapping[str, Any]) -> None:
        line = (json.dumps(fields) + "\n").encode()
        if self._is_known:
            start = self._file.tell()
            if self._file.readline() == line:
                return
            self._is_known = False
            self._file.seek(start)
            self._file.truncate()
        self._file.write(line)
        self._file.flush()

    def cut(self) -> None:
        """Drop what an earlier run wrote behind the last line."""
        self._file.truncate()

    def __exit__(self, *error: Any) -> None:
        self._file.close()
