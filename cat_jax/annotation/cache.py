"""Answers of assistants that were paid for, kept by what was asked."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from threading import Lock

from etils import epath

from cat_jax.annotation.client import Answer, Client
from cat_jax.annotation.prompt import Message
from cat_jax.errors import InputError
from cat_jax.files import read_json, write_text


@dataclass(frozen=True)
class Question:
    """A question to an assistant.

    Attributes:
        client: Who is asked.
        messages: What is asked.
        sample: Which of several answers to it.
    """

    client: Client
    messages: Sequence[Message]
    sample: int = 0

    @cached_property
    def key(self) -> str:
        """Return a digest of all that the answer depends on."""
        asked = [
            self.client.model,
            dict(self.client.parameters),
            list(self.messages),
            self.sample,
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """A folder of answers; each is a file that is whole or not there.

    Args:
        folder: Where they are, also on ``gs://``; None keeps them in memory.
    """

    def __init__(self, folder: str | PathLike[str] | None = None):
        self.folder = None if folder is None else epath.Path(folder)
        self._kept: dict[str, Answer] = {}
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)

    def answer(self, question: Question) -> tuple[Answer, bool]:
        """Return the answer and whether it is new; of equal questions one is asked."""
        with self._locks[question.key]:
            known = self.get(question.key)
            if known is not None:
                return known, False
            answer = question.client.complete(question.messages)
            self.put(question.key, answer)
            return answer, True

    def get(self, key: str) -> Answer | None:
        """Return the answer of a key, None if there is none or its file is torn."""
        if key in self._kept:
            return self._kept[key]
        if self.folder is None or not self._file(key).exists():
            return None
        try:
            answer = Answer(**read_json(self._file(key), dict, "it is asked for again"))
        except (InputError, TypeError):
            return None
        self._kept[key] = answer
        return answer

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        self._kept[key] = answer
        if self.folder is not None:
            write_text(self._file(key), json.dumps(asdict(answer)) + "\n")

    def _file(self, key: str) -> epath.Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key[2:]}.json"
