"""Tasks by name, with the settings that they have where none are given."""

from collections.abc import Mapping

from cat_jax.errors import InputError, name_hint
from cat_jax.tasks.arc import ARC
from cat_jax.tasks.asdiv import ASDiv
from cat_jax.tasks.base import Task
from cat_jax.tasks.chains import Chains
from cat_jax.tasks.cladder import CLadder
from cat_jax.tasks.corr2cause import Corr2Cause
from cat_jax.tasks.gsm8k import GSM8K
from cat_jax.tasks.mawps import MAWPS
from cat_jax.tasks.scm import SCM
from cat_jax.tasks.stg import SIZES, STG
from cat_jax.tasks.stg_h import STGH
from cat_jax.tasks.svamp import SVAMP


def _published(size: str) -> Task:
    game = STGH if size == "stg_h" else STG
    counts = SIZES[size]
    return game(train_records=counts["train"], test_records=counts["iid"]).as_published()


TASKS: dict[str, Task] = {
    "stg": STG(),
    **{size: _published(size) for size in SIZES},
    "scm": SCM(),
    "chains": Chains(),
    "corr2cause": Corr2Cause(),
    "mawps": MAWPS(),
    "svamp": SVAMP(),
    "asdiv": ASDiv(),
    "gsm8k": GSM8K(),
    "arc": ARC(),
    "cladder": CLadder(),
}
"""``stg_l``, ``stg_m``, ``stg_s`` and ``stg_h`` have the sizes and annotations of the paper."""


def find_task(name: str, tasks: Mapping[str, Task] = TASKS) -> Task:
    """Return the task of a name.

    Raises:
        InputError: No such task; the nearest name is suggested.
    """
    if name not in tasks:
        raise InputError(f"no task is named {name!r}; {name_hint(name, tasks)}")
    return tasks[name]
