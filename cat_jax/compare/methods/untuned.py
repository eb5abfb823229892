"""Control: the model as it is, without any training.

What training must be better than. A model that was not told how to answer is seldom right word for
word; ``cat_jax.evaluation.force_choice`` measures what it knows of a few answers.
"""

from cat_jax.compare.methods.base import Method, no_guidance

UNTUNED = Method("untuned", "untuned", no_guidance, trains=False)
