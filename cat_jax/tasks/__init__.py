"""Benchmark tasks: records by split, answers, interventions and reference rules.

``stg(train_records=800)`` and ``stg_h()`` are the Spurious Token Games, ``scm(causes=4)`` games
drawn from other causal models, ``files(train=...)`` a task of your own files. A task of your own
is a subclass of ``Task`` (docs/tasks.md).
"""

from cat_jax.tasks.arc import ARC
from cat_jax.tasks.asdiv import ASDiv
from cat_jax.tasks.base import Task
from cat_jax.tasks.causal_model import CausalModel, Factor
from cat_jax.tasks.chains import Chains
from cat_jax.tasks.cladder import CLadder
from cat_jax.tasks.corr2cause import Corr2Cause
from cat_jax.tasks.files import Files
from cat_jax.tasks.gsm8k import GSM8K
from cat_jax.tasks.mawps import MAWPS
from cat_jax.tasks.registry import TASKS, find_task
from cat_jax.tasks.rules import score_rules
from cat_jax.tasks.scm import SCM, random_scm
from cat_jax.tasks.stg import STG
from cat_jax.tasks.stg_h import STGH
from cat_jax.tasks.svamp import SVAMP

# Under the names of their modules, which nobody needs as attributes.
stg, stg_h, scm, files = STG, STGH, SCM, Files
chains, corr2cause, cladder = Chains, Corr2Cause, CLadder
mawps, svamp, asdiv, gsm8k, arc = MAWPS, SVAMP, ASDiv, GSM8K, ARC

__all__ = [
    "ARC",
    "GSM8K",
    "MAWPS",
    "SCM",
    "STG",
    "STGH",
    "SVAMP",
    "TASKS",
    "ASDiv",
    "CLadder",
    "CausalModel",
    "Chains",
    "Corr2Cause",
    "Factor",
    "Files",
    "Task",
    "arc",
    "asdiv",
    "chains",
    "cladder",
    "corr2cause",
    "files",
    "find_task",
    "gsm8k",
    "mawps",
    "random_scm",
    "scm",
    "score_rules",
    "stg",
    "stg_h",
    "svamp",
]
