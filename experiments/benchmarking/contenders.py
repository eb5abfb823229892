"""Training steps of this package and of torch on the same batch, each timed in its own process.

``experiments.benchmark_against_torch`` runs this module once for each of them.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.benchmarking.processes import peak_bytes

Contender = Literal["plain", "cat", "torch_plain", "torch_cat_loops", "torch_cat"]
ALPHA, WEIGHT, LEARNING_RATE = 2.0, 0.3, 1e-5


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        contender: Who computes which objective.
        folder: Hugging Face folder; without weights in it they are random.
        length: T, positions of a sequence.
        sequences: B, sequences of a batch.
        targets: Tokens at the end of each sequence that are trained; they are annotated, too.
        steps: Steps that are timed, after two that are not.
        device: "cpu" or "gpu"; activations are float32 on the former and bfloat16 on the latter.
        trace: Folder for a profiler trace of one more step of this package; none if empty.
    """

    contender: Contender
    folder: str
    length: int
    sequences: int
    targets: int
    steps: int
    device: str
    trace: str = ""


@dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
        seconds: Of each step.
        peak_bytes: Largest memory of the process (CPU) or of the device's allocator (GPU).
        loss: Of the last step.
    """

    seconds: list[float]
    peak_bytes: int
    loss: float


def arrays(task: Task, vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return token ids [B, T], target mask [B, T], and which keys are causes [B, T].

    The causes are an eighth of the positions before the targets.
    """
    rng = np.random.default_rng(0)
    shape = task.sequences, task.length
    tokens_BT = rng.integers(0, vocabulary, shape).astype(np.int32)
    target_BT = np.zeros(shape, bool)
    target_BT[:, -task.targets :] = True
    causes_BT = rng.random(shape) < 1 / 8
    causes_BT[:, 0], causes_BT[:, -task.targets - 1 :] = True, False
    return tokens_BT, target_BT, causes_BT


def time_steps(step: Callable[[], float], count: int) -> tuple[list[float], float]:
    """Return the seconds of each step after two, and the last loss."""
    loss, seconds = 0.0, []
    for _ in range(count + 2):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return seconds[2:], loss


def ours(task: Task) -> Timing:
    """Time this package."""
    import dataclasses

    import jax
    import jax.numpy as jnp
    import optax

    from cat_jax.config import Guidance, MeshShape
    from cat_jax.data.batches import Batch
    from cat_jax.losses import LogitBudget
    from cat_jax.losses.budget import tokens_at_once
    from cat_jax.models import CausalLM, load_pretrained
    from cat_jax.models.huggingface.config import config_from_hf, read_config
    from cat_jax.sharding import make_mesh
    from cat_jax.train.state import new_state
    from cat_jax.train.step import make_train_step
    from pallas_kernels import select_implementation

    dtype = "float32" if task.device == "cpu" else "bfloat16"
    config = config_from_hf(read_config(Path(task.folder)))
    attention = select_implementation(task.length, dtype, head_dim=config.head_dim).implementation
    config = dataclasses.replace(config, attention=attention, dtype=dtype)
    model = CausalLM(config)
    if any(Path(task.folder).glob("*.safetensors")):
        _, params = load_pretrained(task.folder, dtype=dtype)
    else:
        params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    tokens_BT, target_BT, causes_BT = arrays(task, config.vocab_size)
    effect_BT = np.roll(target_BT, -1, 1)  # the rows that predict the targets
    effect_BT[:, -1] = False
    counts_BT = np.where(effect_BT, causes_BT.sum(1)[:, None], 0).astype(np.int32)
    visible_BT = np.broadcast_to(np.arange(1, task.length + 1, dtype=np.int32), counts_BT.shape)
    q_bits_BTW, k_bits_BTW = (x[..., None].astype(np.uint32) for x in (effect_BT, causes_BT))
    batch = Batch(tokens_BT, target_BT, q_bits_BTW, k_bits_BTW, counts_BT, visible_BT)
    guidance = Guidance(form="hinge", scope="mean", alpha=ALPHA, weight=WEIGHT)
    guided = guidance if task.contender == "cat" else None
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=0.0)
    mesh = make_mesh(MeshShape(), task.sequences)
    targets = -(-task.targets // 8) * 8
    budget = LogitBudget(tokens_at_once(config.vocab_size, 512), min(targets, task.length))
    step = make_train_step(
        model, optimizer, mesh, guided, optax.constant_schedule(WEIGHT), budget=budget
    )
    state: Any = new_state(params, optimizer, mesh)
    del params

    def once() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(jax.block_until_ready(metrics)["loss"])

    seconds, loss = time_steps(once, task.steps)
    if task.trace:
        with jax.profiler.trace(str(Path(task.trace) / f"{task.contender}_{task.length}")):
            once()
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use") or peak_bytes()
    return Timing(seconds, peak, loss)


def theirs(task: Task) -> Timing:
    """Time torch: sdpa on next tokens alone, or eager maps and the published loss."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import AutoConfig, AutoModelForCausalLM

    device = "cuda" if task.device == "gpu" else "cpu"
    guided = task.contender != "torch_plain"
    options: dict[str, Any] = {"attn_implementation": "eager" if guided else "sdpa"}
    model: Any
    if any(Path(task.folder).glob("*.safetensors")):
        model = AutoModelForCausalLM.from_pretrained(task.folder, dtype=torch.float32, **options)
        model.to(device)
    else:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(task.folder), dtype=torch.float32, **options
            )
    model.config.use_cache = False
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=device == "cuda"
    )
    tokens_BT, target_BT, causes_BT = (
        torch.from_numpy(x).to(device) for x in arrays(task, model.config.vocab_size)
    )
    labels_BT = torch.where(target_BT, tokens_BT.long(), -100)
    effect_BT = torch.roll(target_BT, -1, 1)
    effect_BT[:, -1] = False
    mask_BTT = effect_BT[:, :, None] & causes_BT[:, None, :]
    attention_loss = _published_loops if task.contender == "torch_cat_loops" else _vectorised

    def once() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            output = model(input_ids=tokens_BT, labels=labels_BT, output_attentions=guided)
            loss = output.loss
            if guided:
                maps_BTT = torch.stack(output.attentions).mean(dim=(0, 2))
                loss = loss + WEIGHT * attention_loss(torch, maps_BTT, mask_BTT)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(loss)

    seconds, loss = time_steps(once, task.steps)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()
    return Timing(seconds, peak, loss)


def _published_loops(torch: Any, maps_BTT: Any, mask_BTT: Any) -> Any:
    """Return the hinge loss as the published code computes it: row by row."""
    total, count = 0.0, 0
    for maps_TT, mask_TT in zip(maps_BTT, mask_BTT, strict=True):
        for row in range(len(maps_TT)):
            causal, seen = mask_TT[row, : row + 1], maps_TT[row, : row + 1]
            if not causal.any() or causal.all():
                continue
            ratio = seen[causal].mean() / seen[~causal].mean()
            if ratio < ALPHA:
                total = total + ALPHA - ratio
            count += 1
    return total / max(count, 1)


def _vectorised(torch: Any, maps_BTT: Any, mask_BTT: Any) -> Any:
    """Return the same loss of all rows at once."""
    seen_TT = torch.ones_like(mask_BTT[0]).tril()
    causal_BTT, other_BTT = mask_BTT & seen_TT, ~mask_BTT & seen_TT
    inside_BT = (maps_BTT * causal_BTT).sum(-1) / causal_BTT.sum(-1).clamp(min=1)
    outside_BT = (maps_BTT * other_BTT).sum(-1) / other_BTT.sum(-1).clamp(min=1)
    rows_BT = causal_BTT.any(-1) & other_BTT.any(-1)
    hinge_BT = torch.relu(ALPHA - inside_BT / outside_BT.clamp(min=1e-30))
    return torch.where(rows_BT, hinge_BT, 0.0).sum() / rows_BT.sum().clamp(min=1)


if __name__ == "__main__":
    given = Task(**json.loads(sys.argv[1]))
    timed = theirs(given) if given.contender.startswith("torch") else ours(given)
    print(json.dumps(asdict(timed)))
