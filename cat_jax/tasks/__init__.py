"""Benchmark tasks: records by split, answers, interventions and reference rules.

``stg(train_records=800)`` and ``stg_h()`` are the Spurious Token Games, ``scm(causes=4)`` games
drawn from other causal models, ``files(train=...)`` a task of your own files. A task of your own
is a subclass of ``Task`` (docs/tasks.md).
"""

from cat_jax.tasks.base import Task
from cat_jax.tasks.causal_model import CausalModel, Factor
from cat_jax.tasks.chains import Chains
from cat_jax.tasks.corr2cause import Corr2Cause
from cat_jax.tasks.files import Files
from cat_jax.tasks.registry import TASKS, find_task
from cat_jax.tasks.rules import score_rules
from cat_jax.tasks.scm import SCM, random_scm
from cat_jax.tasks.stg import STG
from cat_jax.tasks.stg_h import STGH

# Under the names of their modules, which nobody needs as attributes.
stg, stg_h, scm, files = STG, STGH, SCM, Files
chains, corr2cause = Chains, Corr2Cause

__all__ = [
    "SCM",
    "STG",
    "STGH",
    "TASKS",
    "CausalModel",
    "Chains",
    "Corr2Cause",
    "Factor",
    "Files",
    "Task",
    "chains",
    "corr2cause",
    "files",
    "find_task",
    "random_scm",
    "scm",
    "score_rules",
    "stg",
    "stg_h",
]
