"""Assistants: anything that answers messages; one of them any OpenAI-compatible server."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from cat_jax.annotation.pace import Pace
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

    The key is read from ``OPENAI_API_KEY`` when the first question is asked and goes nowhere else,
    also not where the client is pickled; servers without keys need none. Refusals for a while
    (429) and faults (5xx) are tried again as the server's headers say, and a server that says that
    no request or token is left for now is left alone for as long.

    Args:
        model: Name of the model on the server.
        base_url: Address of the API, ending in "/v1"; None takes ``OPENAI_BASE_URL``, else that of
            OpenAI.
        temperature: Of sampling.
        max_tokens: Longest answer.
        timeout: Seconds to wait for an answer.
        retries: How often a request is tried again.
        requests_per_minute: Most requests to start in a minute; None leaves it to the server.
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
        requests_per_minute: float | None = None,
    ):
        self.model = model
        self.parameters: Mapping[str, Any] = {
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        self._server = {"base_url": base_url, "timeout": timeout, "max_retries": retries}
        self._requests_per_minute = requests_per_minute
        self._takes_schema = True

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_client", "_pace")}

    def __del__(self):
        if "_client" in vars(self):
            self._client.close()

    def connect(self) -> None:
        """Check that there is a server to ask; nothing is asked.

        Raises:
            InputError: The package ``openai`` is missing, or the key for OpenAI's own server.
        """
        _ = self._client

    @cached_property
    def _client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise InputError(
                f"an assistant needs the package openai ({error}); pip install 'cat-jax[annotate]'"
            ) from error
        address = self._server["base_url"] or os.environ.get(URL)
        key = os.environ.get(KEY)
        if address is None and not key:
            raise InputError(f"set {KEY}, or name another server with base_url or {URL}")
        pace = self._pace
        hooks = {"response": [lambda response: pace.follow(response.headers)]}
        settings: Any = self._server | {"base_url": address}
        return openai.OpenAI(
            api_key=key or "none",
            http_client=openai.DefaultHttpxClient(event_hooks=hooks),
            **settings,
        )

    @cached_property
    def _pace(self) -> Pace:
        return Pace(self._requests_per_minute)

    def complete(self, messages: Sequence[Message]) -> Answer:
        """Answer messages, as the JSON schema of ``Reply`` where the server takes one.

        Raises:
            ServerFailed: The server cannot be reached, or refuses key, model or request.
            InputError: As of ``connect``.
        """
        self.connect()
        import openai

        try:
            try:
                done = self._create(messages)
            except openai.BadRequestError:
                if not self._takes_schema:
                    raise
                logger.info("the server takes no JSON schema; it is asked for JSON in words")
                self._takes_schema = False
                done = self._create(messages)
        except openai.APIStatusError as error:
            raise ServerFailed(_status_sentence(error.status_code)) from None
        except openai.APIConnectionError as error:
            slow = isinstance(error, openai.APITimeoutError)
            why = "did not answer in time" if slow else "cannot be reached"
            raise ServerFailed(f"the server {why}; try again later") from None
        return answer_of(done.model_dump())

    def _create(self, messages: Sequence[Message]) -> Any:
        body = request_body(self, messages, schema=self._takes_schema)
        self._pace.wait()
        return self._client.chat.completions.create(**body)


def request_body(
    client: Client, messages: Sequence[Message], *, schema: bool = True
) -> dict[str, Any]:
    """Return the body of a chat completion request.

    Args:
        client: Who is asked.
        messages: What is asked.
        schema: Whether to send the JSON schema of ``Reply``.
    """
    body = {"model": client.model, "messages": list(messages), **client.parameters}
    if schema:
        form = {"name": "annotations", "schema": Reply.model_json_schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def answer_of(completion: Mapping[str, Any]) -> Answer:
    """Return the answer in a chat completion; an empty one where the server gave none."""
    choices, usage = completion.get("choices") or [], completion.get("usage") or {}
    message = choices[0].get("message") or {} if choices else {}
    return Answer(
        message.get("content") or "",
        usage.get("prompt_tokens") or 0,
        usage.get("completion_tokens") or 0,
    )


def _status_sentence(status: int) -> str:
    """Return what a status means, without the server's words, which may repeat the prompt."""
    known = {
        401: f"the key is refused; check {KEY}",
        403: f"the key may not do this; check {KEY}",
        404: "there is no such model or address; check --model and --base-url",
        429: "too many requests, or no credit left; try again later",
    }
    return f"the server answered {status}: {known.get(status, 'try again later')}"
