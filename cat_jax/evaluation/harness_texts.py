"""Texts for lm-evaluation-harness: decoding up to stop strings, with the settings of its tasks."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cat_jax.errors import InputError
from cat_jax.evaluation.decode import generate
from cat_jax.evaluation.sampling import GREEDY, Sampling
from cat_jax.models import LanguageModel

logger = logging.getLogger(__name__)

IGNORED = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "use_cache": True}
"""Settings of transformers' ``generate`` that change nothing at these values."""


@dataclass(frozen=True)
class TextRequest:
    """A context to continue.

    Attributes:
        ids: Token ids of the context.
        until: Strings that end the text, and are not part of it.
        max_new_tokens: Most new tokens.
        sampling: Temperature and filters.
    """

    ids: list[int]
    until: tuple[str, ...]
    max_new_tokens: int
    sampling: Sampling

    @classmethod
    def read(
        cls, ids: list[int], settings: Mapping[str, Any], max_new_tokens: int
    ) -> "TextRequest":
        """Read the ``generation_kwargs`` of a task, as the harness normalises them.

        Args:
            ids: Token ids of the context.
            settings: Settings of the task.
            max_new_tokens: Most new tokens where they do not say.

        Raises:
            InputError: A setting that the decoder does not know.
        """
        from lm_eval.models.utils import (  # pyright: ignore[reportMissingImports]
            normalize_gen_kwargs,
        )

        left: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings), max_new_tokens))
        until = tuple(stop for stop in left.pop("until") if stop)
        most = left.pop("max_gen_toks")
        sampling = _sampling(left)
        unknown = {k: v for k, v in left.items() if v is not None and IGNORED.get(k) != v}
        if unknown:
            raise InputError(
                f"the decoder has no generation_kwargs {unknown}; it knows until, max_gen_toks, "
                "do_sample, temperature, top_k and top_p: mend the task, or override it "
                "(gen_kwargs)"
            )
        return cls(ids, until, most, sampling)


def _sampling(left: dict[str, Any]) -> Sampling:
    """Take the settings of sampling out; filters do nothing to greedy decoding."""
    sampled = left.pop("do_sample")
    temperature = float(left.pop("temperature", None) or 0.0)
    top_k, top_p = left.pop("top_k", None), left.pop("top_p", None)
    if not sampled:
        return GREEDY
    if temperature == 0:
        raise InputError("do_sample needs a temperature above 0: set both, or none of them")
    return Sampling(temperature, top_k or None, top_p)


def generate_texts(
    model: LanguageModel,
    requests: Sequence[TextRequest],
    *,
    max_length: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[int, str]]:
    """Yield the number of each request and its text, as batches are done, long contexts first.

    Contexts are cut off on the left so that all new tokens fit. Requests that are sampled go in
    one call of ``generate``: a draw depends on the place in the list.

    Args:
        model: Model and tokenizer.
        requests: What to continue.
        max_length: Most tokens of a context and its text.
        batch_size: Contexts that are decoded at a time.
        seed: Seed of sampling.

    Raises:
        InputError: A request leaves no room for its context.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    cut = 0
    for n, request in enumerate(requests):
        if request.max_new_tokens >= max_length:
            raise InputError(
                f"a task asks for {request.max_new_tokens} new tokens, but context and text "
                f"together have at most {max_length}: lower its max_gen_toks (gen_kwargs)"
            )
        cut += len(request.ids) > max_length - request.max_new_tokens
        key = request.until, request.max_new_tokens, request.sampling
        groups.setdefault(key, []).append(n)
    if cut:
        logger.warning(
            "%d of %d contexts leave too little room for their texts and were cut off on the left",
            cut, len(requests),
        )  # fmt: skip
    for (until, most, sampling), numbers in groups.items():
        step = batch_size
        if sampling == GREEDY:
            numbers = sorted(numbers, key=lambda n: -len(requests[n].ids))
        else:
            step = len(numbers)
        hits = _stop_finder(model, until)
        for start in range(0, len(numbers), step):
            chosen = numbers[start : start + step]
            found = generate(
                model.model,
                model.params,
                [requests[n].ids[-(max_length - most) :] for n in chosen],
                max_new_tokens=most,
                stop_ids=model.stop_ids,
                sampling=sampling,
                seed=seed,
                batch_size=batch_size,
                is_over=hits if until else None,
            )
            for n, ids in zip(chosen, found, strict=True):
                yield n, _text(model, ids, until, hits)


def _stop_finder(model: LanguageModel, until: tuple[str, ...]) -> Callable[[list[int]], bool]:
    """Return a function that tells whether token ids spell a stop string, special tokens too."""

    def hits(ids: list[int]) -> bool:
        text = model.tokenizer.decode(ids)
        return any(stop in text for stop in until)

    return hits


def _text(
    model: LanguageModel,
    ids: list[int],
    until: tuple[str, ...],
    hits: Callable[[list[int]], bool],
) -> str:
    """Return the text before the first stop string, without special tokens."""
    if until and hits(ids):
        low, high = 0, len(ids)  # the shortest run of tokens that spells a stop string
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if hits(ids[:middle]) else (middle, high)
        ids = ids[:high]
    text: Any = model.tokenizer.decode(ids, skip_special_tokens=True)
    for stop in (*until, model.tokenizer.eos_token):
        text = text.split(stop)[0] if stop else text
    return text
