"""Benchmark tasks: records by split, answers, interventions and reference rules.

``stg(train_records=800)`` and ``stg_h()`` are the Spurious Token Games, ``files(train=...)`` a
task of your own files. A task of your own is a subclass of ``Task`` (docs/tasks.md).
"""

from cat_jax.tasks.base import Task
from cat_jax.tasks.files import Files
from cat_jax.tasks.stg import STG
from cat_jax.tasks.stg_h import STGH

# Under the names of their modules, which nobody needs as attributes.
stg, stg_h, files = STG, STGH, Files

__all__ = ["STG", "STGH", "Files", "Task", "files", "stg", "stg_h"]
