"""Annotation as an Apache Beam transform, on as many workers as a runner has.

Needs the extra ``beam``. Workers share the folder of the cache, so what one has asked no other
asks, and a pipeline that was cut off goes on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
    PipelineOptions,
)

from cat_jax.annotation.agreement import Keep
from cat_jax.annotation.annotate import annotate_each, as_clients
from cat_jax.annotation.cache import AnswerCache
from cat_jax.annotation.client import Client, ServerFailed
from cat_jax.annotation.prior import Prior
from cat_jax.data.records import Record

FAILED = "failed"
"""Tag of the output with pairs of a record and why the server could not be asked about it."""
COUNTERS = "cat_jax.annotation"
"""Namespace of the counters: accepted, rejected, attempts, prompt_tokens, completion_tokens."""


class Annotate(beam.PTransform):
    """Annotate records: from ``Record`` to ``Outcome`` objects, in any order.

    The result has the outcomes under ``None`` and, under ``FAILED``, records whose server failed.

    Args:
        prior: What assistants are told.
        clients: Assistants; they are pickled, so they must not hold connections or secrets.
        cache: Folder or ``gs://`` path that all workers can write.
        samples: How often each assistant is asked.
        keep: Which edges of several opinions are kept.
        concurrency: Records that each worker asks about at a time.
        retry_rejects: Ask anew for records that were rejected before.
    """

    def __init__(
        self,
        prior: Prior,
        clients: Sequence[Client],
        cache: str | PathLike[str],
        *,
        samples: int = 1,
        keep: Keep = "majority",
        concurrency: int = 8,
        retry_rejects: bool = False,
    ):
        super().__init__()
        self._batch = 4 * concurrency
        options = {
            "samples": samples,
            "keep": keep,
            "concurrency": concurrency,
            "retry_rejects": retry_rejects,
        }
        self._given = prior, as_clients(clients, samples), str(cache), options

    def expand(self, input_or_inputs: Any) -> Any:
        """Apply the transform; records go to any worker, some at a time."""
        return (
            input_or_inputs
            | beam.Reshuffle()
            | beam.BatchElements(min_batch_size=1, max_batch_size=self._batch)
            | beam.ParDo(_Annotate(*self._given)).with_outputs(FAILED, main=None)
        )


class _Annotate(beam.DoFn):
    def __init__(self, prior: Prior, clients: list[Client], cache: str, options: dict[str, Any]):
        self._prior, self._clients, self._folder, self._options = prior, clients, cache, options

    def setup(self) -> None:
        self._cache = AnswerCache(self._folder)

    def process(self, records: Sequence[Record]) -> Iterator[Any]:
        done = 0
        try:
            for outcome in annotate_each(
                records, self._prior, self._clients, cache=self._cache, **self._options
            ):
                done += 1
                _count("accepted" if outcome.accepted else "rejected", 1)
                if not outcome.cached:
                    _count("attempts", outcome.attempts)
                    _count("prompt_tokens", outcome.prompt_tokens)
                    _count("completion_tokens", outcome.completion_tokens)
                yield outcome
        except ServerFailed as error:
            for record in records[done:]:
                yield beam.pvalue.TaggedOutput(FAILED, (record, str(error)))


def _count(name: str, number: int) -> None:
    beam.metrics.Metrics.counter(COUNTERS, name).inc(number)


def answer_with_beam(
    records: Iterable[Record],
    prior: Prior,
    clients: Sequence[Client],
    cache: str | PathLike[str],
    *,
    runner_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, int]:
    """Ask about records on the workers of a Beam runner, so that the cache has the answers.

    ``annotate`` with the same cache then asks only about records whose server failed.

    Args:
        records: Records to annotate.
        prior: What assistants are told.
        clients: Assistants.
        cache: Folder or ``gs://`` path that all workers can write.
        runner_options: Options of the pipeline, such as ``{"runner": "DirectRunner"}``.
        options: As of ``Annotate``.

    Returns:
        The counters.
    """
    pipeline = beam.Pipeline(options=PipelineOptions.from_dictionary(dict(runner_options or {})))
    _ = pipeline | beam.Create(list(records)) | Annotate(prior, clients, cache, **options)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(COUNTERS))
    return {counter.key.metric.name: counter.result for counter in found["counters"]}
