"""Decoding, answers to test sets, and what is measured on them."""

from cat_jax.evaluation.answers import answer_matches, answers, changed_answers, exact_match
from cat_jax.evaluation.causal_mass import (
    CausalMass,
    causal_mass,
    measure_causal_mass,
    measure_right_answers,
)
from cat_jax.evaluation.chat import chat_prompt
from cat_jax.evaluation.completion import Completions, complete
from cat_jax.evaluation.decode import generate, warm_up
from cat_jax.evaluation.forced_choice import ForcedChoices, find_choices, force_choice
from cat_jax.evaluation.harness import harness_model
from cat_jax.evaluation.results import Evaluation, TestAnswers
from cat_jax.evaluation.sampling import GREEDY, Sampling
from cat_jax.evaluation.sensitivity import Sensitivity, measure_sensitivity, score_sensitivity
from cat_jax.evaluation.statistics import (
    Interval,
    PairedTest,
    Score,
    mean_interval,
    mean_score,
    paired_test,
    share_interval,
    share_score,
)
from cat_jax.evaluation.steering import steered_answers
from cat_jax.evaluation.suite import evaluate
from cat_jax.evaluation.text_loss import TextLoss, Texts, python_texts, text_loss
from cat_jax.evaluation.token_scores import TokenScores, token_scores
from cat_jax.evaluation.validation import make_validation

__all__ = [
    "GREEDY",
    "CausalMass",
    "Completions",
    "Evaluation",
    "ForcedChoices",
    "Interval",
    "PairedTest",
    "Sampling",
    "Score",
    "Sensitivity",
    "TestAnswers",
    "TextLoss",
    "Texts",
    "TokenScores",
    "answer_matches",
    "answers",
    "causal_mass",
    "changed_answers",
    "chat_prompt",
    "complete",
    "evaluate",
    "exact_match",
    "find_choices",
    "force_choice",
    "generate",
    "harness_model",
    "make_validation",
    "mean_interval",
    "mean_score",
    "measure_causal_mass",
    "measure_right_answers",
    "measure_sensitivity",
    "paired_test",
    "python_texts",
    "score_sensitivity",
    "share_interval",
    "share_score",
    "steered_answers",
    "text_loss",
    "token_scores",
    "warm_up",
]
