"""Ask how much annotation CAT needs, and how wrong it may be: STG and SmolLM2-135M-Instruct.

python -m experiments.sweep annotations

2, 10 and 50 % of the 800 records annotated (16, 80 and 400), and 20 % of the causes wrong, between
plain fine-tuning and CAT with all annotations; settings of stg_smollm2, three seeds.
"""

from cat_jax.config import method_cells
from configs import stg_smollm2

METHODS = (
    "baseline",
    "cat_annotated_2",
    "cat_annotated_10",
    "cat_annotated_50",
    "cat_wrong_20",
    "cat",
)
SEEDS = (0, 1, 2)

CELLS = method_cells(stg_smollm2.CONFIG, METHODS, SEEDS)
