"""Heads that copy an answer from the prompt.

Source: W. Wu et al. 2024, "Retrieval Head Mechanistically Explains Long-Context Factuality"
(arXiv 2404.15574), section 2.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from cat_jax.analysis.attention.head_scores import HeadScores
from cat_jax.analysis.attention.maps import attention_rows
from cat_jax.analysis.attention.text import ReadText, check_records, read_text
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.evaluation.answers import EXTRA_TOKENS
from cat_jax.evaluation.decode import generate
from cat_jax.models import LanguageModel
from cat_jax.ranges import Count, check_number
from cat_jax.types import Float, Int

ROUND = 32
"""Sequences are padded to a multiple of this, so that few lengths are compiled."""
PLACES = (
    *("Lisbon", "Oslo", "Cairo", "Lima", "Quito", "Delhi", "Hanoi", "Accra", "Turin", "Bergen"),
    *("Porto", "Kyoto", "Dakar", "Sofia", "Riga", "Malmo", "Perth", "Davao", "Cusco", "Basel"),
)
FILLER = (
    "The river was calm in the morning.",
    "A cat slept on the warm stone.",
    "Two boats left the harbour before noon.",
    "The market sold bread and olives.",
    "Children played near the old bridge.",
    "In the evening a light rain fell.",
    "The library closed early that day.",
    "Someone left a blue umbrella on the bench.",
)


def retrieval_scores(
    model: LanguageModel, records: Sequence[Record], *, batch_size: int = 8
) -> HeadScores:
    """Score every head by the share of the needle that it copies into the model's own answer.

    The needle of a record is the annotated causes of its answer in the prompt. The model answers
    greedily; a head copies a token of its answer if that token is the one the head attends to most
    of all, at the query that predicts it, and stands in the needle. The score is the share of the
    needle's different tokens that the head copies. Where a model does not find the needle, no head
    can copy it: read the scores beside the share of right answers.

    Args:
        model: The model.
        records: Annotated prompts and answers, such as ``needle_records`` makes.
        batch_size: Sequences that are computed at a time.

    Returns:
        The score "retrieval"; NaN of records without a needle.

    Raises:
        InputError: There are no records, or a prompt leaves no room for an answer.
    """
    check_records(records, "retrieve from")
    texts = [read_text(record, model.tokenizer) for record in records]
    starts = [min(text.queries(None)) + 1 for text in texts]
    prompts = [text.encoding.ids[:start] for text, start in zip(texts, starts, strict=True)]
    longest = max(text.kinds.count("effect") for text in texts) + EXTRA_TOKENS
    answers = generate(
        model.model,
        model.params,
        prompts,
        max_new_tokens=longest,
        stop_ids=model.stop_ids,
        batch_size=batch_size,
    )
    found: list[np.ndarray] = []
    read = list(zip(texts, prompts, answers, strict=True))
    for first in range(0, len(read), batch_size):
        found += _copied(model, read[first : first + batch_size], batch_size, longest)
    return HeadScores({"retrieval": np.stack(found)})


def copied_share(
    rows_XRT: Float[np.ndarray, "*rest R T"],
    tokens_T: Int[np.ndarray, " T"],
    written_R: Int[np.ndarray, " R"],
    needle: Sequence[int],
) -> Float[np.ndarray, "*rest"]:
    """Return the share of a needle's different tokens that is copied, by the other axes.

    Args:
        rows_XRT: Attention of the queries that wrote a token each.
        tokens_T: Token ids that they could read.
        written_R: Token id that each wrote.
        needle: Positions of the needle; not empty.
    """
    read = rows_XRT.argmax(-1)
    copies = (tokens_T[read] == written_R) & np.isin(read, needle)
    wanted = np.unique(tokens_T[list(needle)])
    hits = [(copies & (written_R == token)).any(-1) for token in wanted]
    return np.mean(hits, axis=0)


def needle_records(count: int = 32, sentences: int = 20, seed: int = 0) -> list[Record]:
    """Return prompts that hide a number of five digits among sentences, and ask for it.

    Args:
        count: Records.
        sentences: Sentences around the needle.
        seed: Seed of places, numbers and sentences.
    """
    check_number("count", count, Count)
    check_number("sentences", sentences, Count)
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        place, number = str(rng.choice(PLACES)), str(rng.integers(10_000, 100_000))
        filler = [str(x) for x in rng.choice(FILLER, sentences)]
        depth = int(rng.integers(sentences + 1))
        before = "".join(f"{x} " for x in filler[:depth]) + f"The secret number of {place} is "
        after = "".join(f" {x}" for x in filler[depth:])
        question = f" Question: What is the secret number of {place}? Answer: The number is "
        prompt = f"{before}{number}.{after}{question}"
        note = Annotation(Span(number, len(prompt)), (Span(number, len(before)),))
        records.append(Record(prompt, number, (note,)))
    return records


def _copied(
    model: LanguageModel,
    chosen: Sequence[tuple[ReadText, list[int], list[int]]],
    batch_size: int,
    longest: int,
) -> list[np.ndarray]:
    """Return the shares of a batch's records, [N, H] each."""
    length = max(len(prompt) for _, prompt, _ in chosen) + longest
    tokens_BT = np.zeros((batch_size, -(-length // ROUND) * ROUND), np.int32)
    queries_BR = np.zeros((batch_size, longest), np.int32)
    for n, (_, prompt, answer) in enumerate(chosen):
        tokens_BT[n, : len(prompt) + len(answer)] = [*prompt, *answer]
        queries_BR[n, : len(answer)] = np.arange(len(answer)) + len(prompt) - 1
    inputs = jnp.asarray(tokens_BT), jnp.asarray(queries_BR)
    rows: Any = attention_rows(model.model, model.params, *inputs)
    shares = []
    for n, (text, prompt, answer) in enumerate(chosen):
        needle = [x for x in range(len(prompt)) if text.kinds[x] == "cause"]
        rows_NHRT = np.asarray(rows[:, n, :, : len(answer)])
        if not needle:
            shares.append(np.full(rows_NHRT.shape[:2], np.nan))
            continue
        shares.append(copied_share(rows_NHRT, tokens_BT[n], np.array(answer, int), needle))
    return shares
