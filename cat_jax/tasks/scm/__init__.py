"""Games drawn from random structural causal models: ``SCM``, and ``random_scm`` of any kind."""

from cat_jax.tasks.scm.family import random_scm
from cat_jax.tasks.scm.task import SCM

__all__ = ["SCM", "random_scm"]
