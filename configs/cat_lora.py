"""Train low-rank adapters on your own records, attention guided where annotated.

python -m experiments.finetune cat_lora --model.name Qwen/Qwen2.5-7B --data.train train.jsonl
"""

import dataclasses

from configs import cat, sft_lora

CONFIG = dataclasses.replace(sft_lora.CONFIG, name="cat_lora", guidance=cat.CONFIG.guidance)
