"""Run the grid of the paper's experiments: games and downstream tasks, models, full and LoRA.

python -m experiments.sweep paper --only 'stg_m-TinyLlama*'
python -m experiments.sweep paper --dry-run

Plain fine-tuning and CAT as published, three seeds. Downstream tasks need the paper's annotated
files: FOLDER/MAWPS/mawps_train.jsonl and so on, where CAT_DATA names FOLDER (docs/tasks.md).
Adapters take the settings of CAT's published code; other settings are starting points, not tuned.
Nothing of it was run here.
"""

import os
from dataclasses import replace

from cat_jax import tasks
from cat_jax.config import (
    PUBLISHED,
    Cell,
    Optimizer,
    Pretrained,
    PretrainedLora,
    RunConfig,
    Training,
)

DATA = os.environ.get("CAT_DATA", "CAT")
TASKS = {
    "stg_s": tasks.find_task("stg_s"),
    "stg_m": tasks.find_task("stg_m"),
    "stg_l": tasks.find_task("stg_l"),
    "stg_h": tasks.find_task("stg_h"),
    "mawps": tasks.mawps(folder=f"{DATA}/MAWPS", ood=f"{DATA}/SVAMP/svamp_ood.jsonl"),
    "svamp": tasks.svamp(folder=f"{DATA}/SVAMP", ood=f"{DATA}/MAWPS/mawps_ood.jsonl"),
    "asdiv": tasks.asdiv(folder=f"{DATA}/ASDiv", ood=f"{DATA}/SVAMP/svamp_ood.jsonl"),
    "gsm8k": tasks.gsm8k(folder=f"{DATA}/GSM8K", ood=f"{DATA}/SVAMP/svamp_ood.jsonl"),
    "arc_e": tasks.arc(folder=f"{DATA}/ARC-E"),
}
MODELS = (
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-1B-Instruct",
    "Qwen/Qwen3-1.7B",
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct",
)
FORMS = {
    "full": (Pretrained, Optimizer(learning_rate=1e-5)),
    "lora": (PretrainedLora, Optimizer(learning_rate=1e-3)),
}
METHODS = ("baseline", "cat_published")
SEEDS = (0, 1, 2)
TRAIN = Training(
    steps=250, batch_size=64, accumulate=4, log_every=5, eval_every=250, save_every=125
)
LENGTHS = {"gsm8k": 512, "arc_e": 512}


def _run(task: str, model: str, form: str, seed: int) -> RunConfig:
    source, optimizer = FORMS[form]
    return RunConfig(
        name="paper",
        model=source(name=model),
        data=TASKS[task],
        guidance=PUBLISHED,
        optimizer=optimizer,
        train=replace(TRAIN, max_length=LENGTHS.get(task, TRAIN.max_length)),
        seed=seed,
    )


CELLS = [
    Cell(
        f"{task}-{model.rpartition('/')[2]}-{form}-{method}", _run(task, model, form, seed), method
    )
    for task in TASKS
    for model in MODELS
    for form in FORMS
    for seed in SEEDS
    for method in METHODS
]
