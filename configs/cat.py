"""Fine-tune a pretrained Llama or Qwen on your own records, attention guided where annotated.

python -m experiments.finetune cat --model.name Qwen/Qwen2.5-1.5B --data.train train.jsonl

Guidance is a starting point; it was not tuned on pretrained models.
"""

import dataclasses

from cat_jax.config import Guidance
from configs import sft

CONFIG = dataclasses.replace(
    sft.CONFIG, name="cat", guidance=Guidance(weight=0.3, form="mass_nll", scope="mean")
)
