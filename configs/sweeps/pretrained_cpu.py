"""Tune SmolLM2-135M-Instruct on STG_M with two CPU cores: the sweep pretrained, smaller.

python -m experiments.sweep pretrained_cpu

200 steps of 8 records see each of the 800 records twice, a tenth of what pretrained shows; there
are 200 test records in each set. The learning rate is that of stg_smollm2, and was not tuned for
the smaller batch.
"""

from dataclasses import replace

from configs.sweeps import pretrained

RUN = replace(
    pretrained.stg_smollm2.CONFIG,
    data=replace(pretrained.stg_smollm2.CONFIG.data, test_records=200),
    train=replace(
        pretrained.stg_smollm2.CONFIG.train,
        steps=200,
        batch_size=8,
        eval_every=200,
        save_every=50,
    ),
)

CELLS = pretrained.cells(RUN)
