"""Tokenizers of every kind that prompts and answers must survive, trained on a few lines."""

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import ByteLevel as ByteOffsets
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import PreTrainedTokenizerFast

from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.testing import toy_tokenizer

LINES = [
    "Smoking: 8, Yellow fingers: 12. Answer: High Risk",
    "Weight: 10 Answer: Low Risk, is not it ? The café is 84.0 % full .",
    "The answer to the question is in the house; a her and a him",
]
BOS, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = [UNKNOWN, BOS, END]


def small_tokenizer(name):
    """Return the tokenizer of that name in ``KINDS``."""
    return KINDS[name]()


def _fast(tokenizer, **more):
    special = {"unk_token": UNKNOWN, "bos_token": BOS, "eos_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special | more)


def _byte_level(normalizer=None, trim_offsets=False, add_prefix_space=False, **more):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    if trim_offsets:
        tokenizer.post_processor = ByteOffsets(trim_offsets=True)
    return _fast(tokenizer, **more)


def _appends_end():
    fast = _byte_level()
    ids = [(token, fast.convert_tokens_to_ids(token)) for token in (BOS, END)]
    fast.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A {END}", special_tokens=ids
    )
    return fast


def _sentence_piece(normalizer, decoder, pre_tokenizer=None):
    """Return BPE that falls back to bytes, as Llama 2 has it."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trainer = BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    fields = json.loads(tokenizer.to_str())
    fields["model"]["byte_fallback"] = True
    vocabulary = fields["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    fields["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(fields))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    return _fast(tokenizer)


def _llama():
    parts = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    joined = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = decoders.Strip(" ", 1, 0)
    return _sentence_piece(normalizers.Sequence(parts), decoders.Sequence([*joined, strip]))


def _nfkc():
    joined = [decoders.ByteFallback(), decoders.Metaspace()]
    return _sentence_piece(
        normalizers.NFKC(), decoders.Sequence(joined), pre_tokenizers.Metaspace()
    )


def _unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token=UNKNOWN, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return _fast(tokenizer)


KINDS = {
    name: cache(make)
    for name, make in {
        "toy": toy_tokenizer,
        "words": lambda: train_tokenizer(LINES),
        "byte_level": _byte_level,
        "nfc": lambda: _byte_level(normalizers.NFC()),
        "trimmed_offsets": lambda: _byte_level(trim_offsets=True),
        "prefix_space": lambda: _byte_level(add_prefix_space=True),
        "clean_up": lambda: _byte_level(clean_up_tokenization_spaces=True),
        "appends_end": _appends_end,
        "dummy_prefix": _llama,
        "nfkc": _nfkc,
        "unigram": _unigram,
    }.items()
}
