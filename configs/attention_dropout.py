"""Fine-tune on your own records, unannotated words hidden at random from annotated ones.

python -m experiments.finetune attention_dropout --model.name M --data.train train.jsonl

Another use of the annotation than guidance (docs/controls.md); full attention maps are computed.
"""

import dataclasses

from cat_jax.config import AttentionDropout
from configs import sft

CONFIG = dataclasses.replace(
    sft.CONFIG, name="attention_dropout", regularizer=AttentionDropout(rate=0.5)
)
