"""Methods that do not train: the model as it is."""

from dataclasses import replace

from cat_jax.compare.setup import ComparisonSetup
from cat_jax.config import LoraConfig, Training
from cat_jax.data.ends import line_end_ids
from cat_jax.evaluation.answers import answer_range
from cat_jax.models.language_model import LanguageModel
from cat_jax.train.setup import setup_training


def load_untrained(
    setup: ComparisonSetup, method: str, train: Training, lora: LoraConfig | None
) -> LanguageModel:
    """Load the model of a method that does not train, with the attention that its prompts need.

    Its answers end with their first line too, unless right ones have several lines.

    Args:
        setup: What the methods of the seed share.
        method: Name of the method.
        train: Training loop of the others.
        lora: Adapters of the others, which change nothing before they are trained.

    Raises:
        InputError: As ``setup_training``.
    """
    examples = [x for test in setup.tests[method].values() for x in test.examples]
    length = max(train.max_length, *(len(example.tokens) for example in examples))
    begun = setup_training(
        setup.start, setup.tokenizer, replace(train, max_length=length), lora=lora, seed=setup.seed
    )
    line_ends = line_end_ids(setup.tokenizer)
    answered = {int(x.tokens[n]) for x in examples for n in answer_range(x)}
    ends = () if answered & set(line_ends) else line_ends
    return LanguageModel(
        begun.model,
        begun.complete_params(begun.params),
        setup.tokenizer,
        end_ids=(*begun.end_ids, *ends),
    )
