"""Models for EleutherAI's lm-evaluation-harness (package ``lm_eval``, extra ``lm-eval``).

Scores and texts are those of its own Hugging Face model (``lm_eval.models.huggingface.HFLM`` of
lm-eval 0.4.13, decoder-only); the base class there splits contexts from continuations.
"""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

from cat_jax.data.chat_template import apply_template
from cat_jax.errors import InputError
from cat_jax.evaluation.harness_texts import TextRequest, generate_texts
from cat_jax.evaluation.token_scores import token_scores
from cat_jax.files import one_line
from cat_jax.models import LanguageModel

logger = logging.getLogger(__name__)


def harness_model(
    model: LanguageModel,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
    max_gen_toks: int = 256,
    add_bos_token: bool | None = None,
    prefix_token_id: int | None = None,
    template_options: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
) -> Any:
    """Return a model for ``lm_eval.simple_evaluate(model=..., tasks=[...])``.

    Args:
        model: Model and tokenizer, such as a ``RunResult`` or what ``load_language_model`` gives.
        batch_size: Most requests that are computed at a time.
        max_length: Longest input in tokens, cut off on the left; at most, and by default, the
            model's ``max_positions``.
        max_gen_toks: Most new tokens where a task does not say.
        add_bos_token: Whether texts get the tokenizer's special tokens; None leaves it to the
            tokenizer. A text that begins with the BOS gets no second one.
        prefix_token_id: Stands before a text without a context; None takes the tokenizer's BOS, or
            else its end token.
        template_options: Variables of the chat template, and the ``date`` that it prints; those of
            training.
        seed: Seed of sampling, for tasks that ask for it; 0 to 2**32 - 1.

    Returns:
        An ``lm_eval.api.model.LM``.

    Raises:
        InputError: The package is missing, a size is out of range, or the tokenizer has neither a
            BOS nor an end token.
    """
    template = import_harness().api.model.TemplateLM
    limit = model.model.config.max_positions
    max_length = limit if max_length is None else max_length
    if not 1 <= max_length <= limit:
        raise InputError(f"max_length must be 1 to {limit} with this model, got {max_length}")
    if min(batch_size, max_gen_toks) < 1:
        raise InputError(
            f"batch_size ({batch_size}) and max_gen_toks ({max_gen_toks}) must be at least 1"
        )
    tokenizer = model.tokenizer
    known = (prefix_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    prefix = next((token for token in known if token is not None), None)
    if prefix is None:
        raise InputError(
            "the tokenizer has neither a BOS nor an end token: give the prefix_token_id that "
            "stands before a text"
        )
    # The class that it needs exists where the package does.
    made: Any = type("CatJaxLM", (_HarnessModel, template), {})()
    made.language_model, made.tokenizer, made.prefix_token_id = model, tokenizer, prefix
    made.batch_size, made.max_length, made.max_gen_toks = batch_size, max_length, max_gen_toks
    made.add_bos_token, made.template_options, made.seed = add_bos_token, template_options, seed
    return made


def import_harness() -> Any:
    """Return the package ``lm_eval``.

    Raises:
        InputError: It is not installed.
    """
    try:
        import lm_eval.api.model  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"the evaluation harness is the package lm-eval ({one_line(error)}); pip install "
            "'cat-jax[lm-eval]'"
        ) from error
    return lm_eval


class _HarnessModel:
    """What ``TemplateLM`` leaves to a model.

    A request of the harness has ``args``: context and continuation, a text, or context and settings
    of decoding.
    """

    language_model: LanguageModel
    tokenizer: Any
    prefix_token_id: Any = None
    batch_size: int
    max_length: int
    max_gen_toks: int
    add_bos_token: bool | None
    template_options: Mapping[str, Any]
    seed: int
    cache_hook: Any

    @property
    def eot_token_id(self) -> int | None:
        """Return the tokenizer's end token."""
        return self.tokenizer.eos_token_id

    @property
    def tokenizer_name(self) -> str:
        """Return a name of the tokenizer, for caches of requests."""
        name = self.tokenizer.name_or_path or type(self.tokenizer).__name__
        return name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what the results say of the model."""
        sizes = (leaf.size for leaf in jax.tree.leaves(self.language_model.params))
        dtype = self.language_model.model.config.dtype
        return {"model_num_parameters": sum(sizes), "model_dtype": dtype}

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            string: The text.
            add_special_tokens: Whether the tokenizer adds its own; None leaves it to the settings
                and adds none to a text that begins with the prefix token.
            **kwargs: Not used.
        """
        own = self.add_bos_token if add_special_tokens is None else add_special_tokens
        prefix = self.tokenizer.decode(self.prefix_token_id)
        if add_special_tokens is None and string.startswith(prefix):
            own = False
        return self._encode(string, own)

    def _encode(self, text: str, special: bool | None) -> list[int]:
        options = {} if special is None else {"add_special_tokens": special}
        return self.tokenizer.encode(text, **options)

    def _encode_context(self, text: str) -> list[int]:
        """Return the ids of a text that is continued."""
        bos = self.tokenizer.bos_token
        special = False if bos and text.startswith(bos) else self.add_bos_token
        return self._encode(text, special) or [self.prefix_token_id]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of continuations, and whether greedy decoding gives them.

        Args:
            requests: Texts, for the cache, and ids of context and continuation.
            disable_tqdm: Show no progress.
            **kwargs: Not used.
        """
        from tqdm import tqdm

        sequences, targets = [], []
        for texts, context, continuation in requests:
            self._check(texts, context, continuation)
            ids = (context + continuation)[-(self.max_length + 1) :]
            sequences.append(ids)
            targets.append(range(len(ids) - len(continuation), len(ids)))
        cut = sum(len(a) + len(b) > self.max_length + 1 for _, a, b in requests)
        if cut:
            logger.warning(
                "%d of %d requests are longer than %d tokens and were cut off on the left",
                cut, len(requests), self.max_length,
            )  # fmt: skip
        model = self.language_model
        scored = token_scores(
            model.model, model.params, sequences, targets, batch_size=self.batch_size
        )
        answers: list[Any] = [None] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="log-likelihoods") as bar:
            for number, scores in scored:
                answers[number] = scores.total, bool(scores.likeliest.all())
                texts = requests[number][0]
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answers[number])
                bar.update()
        return answers

    def _check(
        self, texts: tuple[str, str] | None, context: list[int], continuation: list[int]
    ) -> None:
        if not context or not continuation:
            part = "continuation" if context else "context"
            raise InputError(f"the request {texts!r} has no token in its {part}; mend the task")
        if len(continuation) > self.max_length:
            raise InputError(
                f"a continuation has {len(continuation)} tokens, but the model reads at most "
                f"{self.max_length}: {texts!r}"
            )

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of whole texts, each token given as many before as fit."""
        from lm_eval import utils  # pyright: ignore[reportMissingImports]

        windows, owners = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in utils.get_rolling_token_windows(
                ids, self.prefix_token_id, self.max_length, context_len=1
            ):
                windows.append((None, *utils.make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        scored = self._loglikelihood_tokens(windows, disable_tqdm)
        for number, (total, _) in zip(owners, scored, strict=True):
            totals[number] += total
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes after contexts, up to a stop string."""
        from tqdm import tqdm

        asked = [
            TextRequest.read(self._encode_context(context), settings, self.max_gen_toks)
            for context, settings in (request.args for request in requests)
        ]
        texts = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="texts") as bar:
            for number, text in generate_texts(
                self.language_model,
                asked,
                max_length=self.max_length,
                batch_size=self.batch_size,
                seed=self.seed,
            ):
                texts[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
                bar.update()
        return texts

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages in the model's chat template.

        Args:
            chat_history: Messages, oldest first.
            add_generation_prompt: Whether the assistant's next message follows; otherwise it is to
                continue the last one.
        """

        def apply(messages: Sequence[Mapping[str, Any]]) -> str:
            return apply_template(
                self.tokenizer,
                messages,
                self.template_options,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )

        try:
            return apply(chat_history)
        except InputError as error:
            rest = [message for message in chat_history if message["role"] != "system"]
            if len(rest) == len(chat_history):
                raise
            text = apply(rest)
            logger.warning("the system message is left out: %s", error)
            return text
