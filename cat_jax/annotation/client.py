"""Assistants: anything that answers messages; one of them any OpenAI-compatible server."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cat_jax.annotation.prompt import Message
from cat_jax.annotation.reply import Reply
from cat_jax.errors import InputError

logger = logging.getLogger(__name__)

KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"


class ServerFailed(RuntimeError):
    """A server that cannot be reached or refuses to answer at all; what is annotated is kept."""


@dataclass(frozen=True)
class Answer:
    """What an assistant wrote.

    Attributes:
        text: Its words.
        prompt_tokens: Tokens that were read; 0 where the server does not say.
        completion_tokens: Tokens that were written; likewise.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Client(Protocol):
    """An assistant.

    Attributes:
        model: Its name.
        parameters: All else that its answers depend on, JSON values.
    """

    model: str
    parameters: Mapping[str, Any]

    def complete(self, messages: Sequence[Message]) -> Answer:
        """Answer messages.

        Raises:
            ServerFailed: No answer can be had, now or for other messages.
        """
        ...


class OpenAIClient:
    """A model behind an OpenAI-compatible API (vLLM, Ollama, llama.cpp, hosted ones).

    The key is read from ``OPENAI_API_KEY`` and goes nowhere else; servers without keys need none.
    Refusals for a while (429) and faults (5xx) are tried again as the server's headers say.

    Args:
        model: Name of the model on the server.
        base_url: Address of the API, ending in "/v1"; None takes ``OPENAI_BASE_URL``, else that of
            OpenAI.
        temperature: Of sampling.
        max_tokens: Longest answer.
        timeout: Seconds to wait for an answer.
        retries: How often a request is tried again.

    Raises:
        InputError: The package ``openai`` is missing, or the key for OpenAI's own server.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 1024,
        timeout: float = 120.0,
        retries: int = 5,
    ):
        try:
            import openai
        except ImportError as error:
            raise InputError(
                f"an assistant needs the package openai ({error}); pip install 'cat-jax[annotate]'"
            ) from error
        address = base_url or os.environ.get(URL)
        key = os.environ.get(KEY)
        if address is None and not key:
            raise InputError(f"set {KEY}, or name another server with base_url or {URL}")
        self.model = model
        self.parameters = {"temperature": temperature, "max_tokens": max_tokens}
        self._openai = openai
        self._takes_schema = True
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=address, timeout=timeout, max_retries=retries
        )

    def complete(self, messages: Sequence[Message]) -> Answer:
        """Answer messages, as the JSON schema of ``Reply`` where the server takes one.

        Raises:
            ServerFailed: The server cannot be reached, or refuses key, model or request.
        """
        try:
            try:
                done = self._create(messages)
            except self._openai.BadRequestError:
                if not self._takes_schema:
                    raise
                logger.info("the server takes no JSON schema; it is asked for JSON in words")
                self._takes_schema = False
                done = self._create(messages)
        except self._openai.APIStatusError as error:
            raise ServerFailed(_status_sentence(error.status_code)) from None
        except self._openai.APIConnectionError as error:
            slow = isinstance(error, self._openai.APITimeoutError)
            why = "did not answer in time" if slow else "cannot be reached"
            raise ServerFailed(f"the server {why}; try again later") from None
        usage = done.usage
        return Answer(
            done.choices[0].message.content or "" if done.choices else "",
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
        )

    def _create(self, messages: Sequence[Message]) -> Any:
        schema = {"name": "annotations", "schema": Reply.model_json_schema()}
        options: dict[str, Any] = dict(self.parameters)
        if self._takes_schema:
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        asked: Any = list(messages)
        return self._client.chat.completions.create(model=self.model, messages=asked, **options)


def _status_sentence(status: int) -> str:
    """Return what a status means, without the server's words, which may repeat the prompt."""
    known = {
        401: f"the key is refused; check {KEY}",
        403: f"the key may not do this; check {KEY}",
        404: "there is no such model or address; check --model and --base-url",
        429: "too many requests, or no credit left; try again later",
    }
    return f"the server answered {status}: {known.get(status, 'try again later')}"
