"""Greedy decoding by this package, by torch and by llama.cpp, each timed in its own process.

``experiments.benchmark_decoding`` runs this module once for each of them.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import numpy as np

from experiments.benchmarking.processes import peak_bytes

Decoder = Literal["cat_jax", "torch", "llama.cpp"]
SHORTEST, LONGEST = 16, 128
"""Lengths of the prompts, in tokens."""


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        decoder: Who decodes.
        model: Hugging Face folder; for llama.cpp a GGUF file.
        prompts: Number of prompts, which are decoded as one batch.
        new_tokens: Largest number of new tokens of an answer.
        stops: Share of the vocabulary, taken at random, whose tokens end an answer.
        rounds: Calls that are timed, after one that is not.
        device: "cpu" or "gpu"; activations are float32 on the former and bfloat16 on the latter.
    """

    decoder: Decoder
    model: str
    prompts: int
    new_tokens: int
    stops: float
    rounds: int
    device: str


@dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
        seconds: Of each call, for all prompts.
        first_token_seconds: Of calls that decode one token of every prompt, their median.
        peak_bytes: Largest memory of the process (CPU) or of the device's allocator (GPU).
        answers: New ids of each prompt, up to but without the first stop token.
    """

    seconds: list[float]
    first_token_seconds: float
    peak_bytes: int
    answers: list[list[int]]


def make_prompts(count: int, vocabulary: int) -> list[list[int]]:
    """Return random prompts, lengths spread evenly from the shortest to the longest."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(LONGEST, SHORTEST, count).astype(int)
    return [rng.integers(100, vocabulary, length).tolist() for length in lengths]


def make_stops(share: float, vocabulary: int) -> list[int]:
    """Return the tokens that end an answer."""
    rng = np.random.default_rng(1)
    return np.flatnonzero(rng.random(vocabulary) < share).tolist()


def time_calls(
    decode: Callable[[int], list[list[int]]], task: Task
) -> tuple[list[float], float, list[list[int]]]:
    """Return the seconds of whole calls, the median of calls for one token, and the answers."""

    def seconds(new_tokens: int) -> float:
        start = time.perf_counter()
        decode(new_tokens)
        return time.perf_counter() - start

    answers = decode(task.new_tokens)
    whole = [seconds(task.new_tokens) for _ in range(task.rounds)]
    decode(1)
    first = median(seconds(1) for _ in range(task.rounds))
    return whole, first, answers


def ours(task: Task) -> Timing:
    """Time this package."""
    import jax

    from cat_jax.evaluation import generate
    from cat_jax.models import load_language_model

    dtype = "float32" if task.device == "cpu" else "bfloat16"
    loaded = load_language_model(task.model, dtype=dtype)
    vocabulary = loaded.model.config.vocab_size
    prompts, stops = make_prompts(task.prompts, vocabulary), make_stops(task.stops, vocabulary)

    def decode(new_tokens: int) -> list[list[int]]:
        return generate(
            loaded.model, loaded.params, prompts, max_new_tokens=new_tokens, stop_ids=stops
        )

    timed = time_calls(decode, task)
    stats = jax.devices()[0].memory_stats() or {}
    return _timing(timed, stats.get("peak_bytes_in_use"))


def torchs(task: Task) -> Timing:
    """Time ``transformers.generate`` (torch, sdpa), on prompts padded on the left."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM

    from cat_jax.evaluation.decode import until_stop

    device = "cuda" if task.device == "gpu" else "cpu"
    dtype = torch.float32 if task.device == "cpu" else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(task.model, dtype=dtype)
    model.to(device).eval()
    vocabulary = model.config.vocab_size
    prompts, stops = make_prompts(task.prompts, vocabulary), make_stops(task.stops, vocabulary)
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=device)
    mask_BT = torch.tensor(
        [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device
    )
    model.generation_config.eos_token_id = stops or None

    def decode(new_tokens: int) -> list[list[int]]:
        ids = model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
        return [until_stop(row, stops) for row in ids[:, longest:].tolist()]

    timed = time_calls(decode, task)
    return _timing(timed, torch.cuda.max_memory_allocated() if device == "cuda" else None)


def llama_cpps(task: Task) -> Timing:
    """Time llama.cpp on a GGUF file, a prompt after the other: its Python API has no batches."""
    from llama_cpp import Llama  # pyright: ignore[reportMissingImports]

    # All cores, as the others; by itself it takes half of them. Activations are float32.
    threads = len(os.sched_getaffinity(0))
    model = Llama(
        task.model,
        n_ctx=LONGEST + task.new_tokens,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    prompts = make_prompts(task.prompts, model.n_vocab())
    stops = make_stops(task.stops, model.n_vocab())

    def one(prompt: list[int], new_tokens: int) -> list[int]:
        model.reset()
        found: list[int] = []
        for token in model.generate(prompt, top_k=1, temp=0.0, repeat_penalty=1.0):
            if token in stops:
                break
            found.append(token)
            if len(found) == new_tokens:
                break
        return found

    return _timing(time_calls(lambda count: [one(x, count) for x in prompts], task), None)


def _timing(timed: tuple[list[float], float, list[list[int]]], device_bytes: int | None) -> Timing:
    seconds, first, answers = timed
    return Timing(seconds, first, device_bytes or peak_bytes(), answers)


DECODERS: dict[Decoder, Callable[[Task], Timing]] = {
    "cat_jax": ours,
    "torch": torchs,
    "llama.cpp": llama_cpps,
}


if __name__ == "__main__":
    given = Task(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(DECODERS[given.decoder](given))))
