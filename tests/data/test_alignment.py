import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cat_jax.data.alignment import AlignmentStats, align_records
from cat_jax.data.bitset import decode
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.data.reference_alignment import reference_rectangles
from cat_jax.data.sources import read_records
from cat_jax.errors import InputError
from cat_jax.tasks.stg import stg_records

PIECES = [
    " Risk",
    " 8",
    "8",
    "4",
    "%;",
    "%",
    ";",
    ":",
    " ",
    ".",
    "Smoke",
    " High",
    "High",
    "A",
    "😀",
]
VOCABULARY = {piece: number for number, piece in enumerate(["?", "<s>", "<end>", *PIECES])}


def toy_tokenizer(*, template="$A", **special):
    """Merges a leading space into a word, and "%" into ";" behind it; "?" is unknown."""
    model = Tokenizer(WordLevel(VOCABULARY, unk_token="?"))
    model.pre_tokenizer = Split(Regex(r" ?\p{L}+|%;| ?\d|[^\d]"), "isolated")
    specials = [(token, VOCABULARY[token]) for token in ("<s>", "<end>")]
    model.post_processor = TemplateProcessing(single=template, special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, **({"unk_token": "?", "eos_token": "<end>"} | special)
    )


TOY = toy_tokenizer()


def note(effect, *causes):
    spans = [Span(span) if isinstance(span, str) else Span(*span) for span in (effect, *causes)]
    return Annotation(spans[0], tuple(spans[1:]))


def align(*records, tokenizer=TOY, max_length=99, **options):
    return align_records(records, tokenizer, max_length=max_length, **options)


def pairs(example):
    """Rows of the mask with their columns."""
    mask = decode(example.q_bits, example.k_bits)
    return {int(i): np.flatnonzero(mask[i]).tolist() for i in np.flatnonzero(mask.any(axis=1))}


# --- a whole record by hand ---


def test_a_record_by_hand():
    record = Record("Smoke: 8%; A: ", "High Risk", (note("High Risk", "8%"),))
    (example,), stats = align(record)
    pieces = ["Smoke", ":", " 8", "%;", "?", ":", " High", " Risk", "<end>"]
    assert TOY.convert_ids_to_tokens(example.tokens.tolist()) == pieces
    assert example.tokens.dtype == np.int32
    # " High" straddles the border of prompt and answer: it is the answer's.
    assert example.target_mask.tolist() == [False] * 6 + [True] * 3
    # Rows 5 and 6 predict the tokens 6 and 7. "8%" is found in " 8" and "%;".
    assert pairs(example) == {5: [2, 3], 6: [2, 3]}
    assert example.causal_count.tolist() == [0, 0, 0, 0, 0, 2, 2, 0, 0]
    assert example.visible_count.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert stats == AlignmentStats(spans_asked=2, spans_found=2, records=1)


def test_spaces_of_their_own_inside_a_span_belong_to_it():
    (example,), _ = align(Record("A: Smoke;", "8", (note("8", "A:  Smoke"), note("8", "A: Smoke"))))
    assert TOY.convert_ids_to_tokens(example.tokens.tolist())[:3] == ["A", ":", "?"]
    (example,), stats = align(Record("A:  8;", "4", (note("4", "A:  8"),)))
    assert TOY.convert_ids_to_tokens(example.tokens.tolist()) == [
        "A", ":", " ", " 8", ";", "4", "<end>",
    ]  # fmt: skip
    assert pairs(example) == {4: [0, 1, 2, 3]}
    assert stats.spans_found == 2


def test_nothing_predicts_the_first_token():
    record = Record("88;", "4", (note("88", "88"),))
    (example,), _ = align(record)
    assert pairs(example) == {0: [0]}  # the row that predicts the second 8
    (example,), _ = align(record, tokenizer=toy_tokenizer(template="<s> $A"))
    assert example.tokens[0] == VOCABULARY["<s>"]
    assert pairs(example) == {1: [1]}


@pytest.mark.parametrize("name", ["models/stories260K", "tokenizers/llama2"])
def test_a_dummy_prefix_is_part_of_no_word(shared, name):
    tokenizer = AutoTokenizer.from_pretrained(shared / name)
    record = Record("8; 4;", " 8", (note("4", "8"), note(("8", 6), ("8", 0))))
    (example,), _ = align(record, tokenizer=tokenizer)
    pieces = ["<s>", "▁", "8", ";", "▁", "4", ";", "▁", "8", "</s>"]
    assert tokenizer.convert_ids_to_tokens(example.tokens.tolist()) == pieces
    assert pairs(example) == {4: [2], 7: [2]}
    (example,), _ = align(Record("", "8;</s>8", (note("8", "8"),)), tokenizer=tokenizer)
    pieces = ["<s>", "▁", "8", ";", "</s>", "▁", "8", "</s>"]
    assert tokenizer.convert_ids_to_tokens(example.tokens.tolist()) == pieces
    assert pairs(example) == {5: [2]}


# --- which places of a span count ---


def test_all_places_count_but_the_answer_is_at_the_end():
    #            0  1 2  3 4  5
    record = Record("8;8;4;", "8", (note("8", "4"),))
    (example,), _ = align(record)
    assert pairs(example) == {5: [4]}  # not the rows before the other two 8
    record = Record("4;8;4;8;", "A", (note("8", "4"),))
    (example,), _ = align(record)
    assert pairs(example) == {1: [0], 5: [0, 4]}
    (example,), _ = align(Record("8;4;", "8.", (note("8.", "4"), note("8", "4"))))
    assert pairs(example) == {3: [2], 4: [2]}


def test_start_means_this_place_alone():
    record = Record("4;8;4;8;", "A", (note(("8", 6), ("4", 4)),))
    (example,), stats = align(record)
    assert pairs(example) == {5: [4]}
    assert stats.spans_found == 2
    record = Record("4; 8 ;", "A", (note("A", (" 8 ", 2)),))
    (example,), _ = align(record)
    assert pairs(example) == {4: [2]}


# --- tokenizers ---


def test_an_end_token_of_the_tokenizer_is_not_doubled():
    record = Record("8;", "4", (note("4", "8"),))
    plain, own = (
        align(record, tokenizer=toy_tokenizer(template=template))[0][0]
        for template in ("$A", "$A <end>")
    )
    assert plain.tokens.tolist() == own.tokens.tolist()
    assert plain.target_mask.tolist() == own.target_mask.tolist() == [False, False, True, True]
    assert pairs(plain) == pairs(own) == {1: [0]}


def test_an_empty_answer_is_its_end_token():
    (example,), _ = align(Record("8;", ""))
    assert example.target_mask.tolist() == [False, False, True]


class Slow:
    is_fast = False
    eos_token = "<end>"


@pytest.mark.parametrize("match", ["offsets", "reference"])
def test_unfit_tokenizers(match):
    record = Record("8", "4")
    with pytest.raises(InputError, match="Slow gives no character offsets"):
        align(record, tokenizer=Slow(), match=match)
    with pytest.raises(InputError, match="no end token"):
        align(record, tokenizer=toy_tokenizer(eos_token=None), match=match)
    with pytest.raises(InputError, match="'words'"):
        align(record, match="words")


# --- statistics ---


def test_long_records_are_left_out_and_counted():
    long, short = Record("8;8;8;8;", "4", (note("4", "8", "A"),)), Record("8;", "4")
    examples, stats = align(long, short, max_length=9)
    assert [len(example.tokens) for example in examples] == [4]
    assert stats == AlignmentStats(0, 0, records=1, records_without_mask=1, too_long=1)
    examples, stats = align(long, short, max_length=10)
    assert [len(example.tokens) for example in examples] == [10, 4]
    assert stats == AlignmentStats(3, 2, records=2, records_without_mask=1)
    assert align(max_length=9) == ([], AlignmentStats())


def test_statistics_add_up_and_prints_one_line():
    total = AlignmentStats(1, 2, 3, 4, 5) + AlignmentStats(10, 20, 30, 40, 50)
    assert total == AlignmentStats(11, 22, 33, 44, 55)
    assert str(total) == (
        "spans found 22/11, records without annotation 44/33, records too long 55"
    )


def test_an_annotation_that_no_query_sees_is_no_mask():
    (example,), stats = align(Record("8;4;", "A", (note("8", "4"),)))
    assert pairs(example) == {}
    assert stats == AlignmentStats(2, 2, records=1, records_without_mask=1)


# --- real tokenizers and published data ---


@pytest.fixture(scope="module", params=["qwen2.5", "llama2"])
def tokenizer(request, shared):
    return AutoTokenizer.from_pretrained(shared / "tokenizers" / request.param)


PUBLISHED = {
    "STG": "STG/spurious_token_game_train3.jsonl",
    "STG_H": "STG_H/STG_H_train.jsonl",
    "MAWPS": "MAWPS/mawps_train.jsonl",
    "SVAMP": "SVAMP/svamp_train.jsonl",
    "GSM8k": "GSM8k/gsm8k_val_first400.jsonl",
}


def test_reference_masks_are_the_published_ones(shared):
    folder = shared / "data" / "cat_reference"
    records = {name: read_records(folder / path)[:30] for name, path in PUBLISHED.items()}
    golden = json.loads((shared / "golden" / "reference_masks.json").read_text())
    tokenizers = {
        name: AutoTokenizer.from_pretrained(shared / "tokenizers" / name)
        for name in ("qwen2.5", "llama2")
    }
    cut = Counter()
    for row in golden:
        record, tokenizer = records[row["dataset"]][row["index"]], tokenizers[row["tokenizer"]]
        mask = set(zip(row["mask_rows"], row["mask_cols"], strict=True))
        where = f"{row['tokenizer']} {row['dataset']} {row['index']}"

        (example,), _ = align(record, tokenizer=tokenizer, max_length=400, match="reference")
        assert example.tokens[:256].tolist() == row["input_ids"], where
        rectangles, _ = reference_rectangles(record, row["input_ids"], tokenizer)
        assert {(i, j) for rows, columns in rectangles for i in rows for j in columns} == mask, (
            where
        )
        if len(example.tokens) > 256:  # the published aligner cuts, this one leaves out
            cut[row["tokenizer"]] += 1
            assert align(record, tokenizer=tokenizer, max_length=256, match="reference")[0] == []
        else:
            found = np.argwhere(decode(example.q_bits, example.k_bits)).tolist()
            assert set(map(tuple, found)) == mask, where
    assert len(golden) == 300
    assert cut == {"qwen2.5": 2, "llama2": 3}


CAUSAL = (
    "Industrial Emissions",
    "Vehicle Emissions",
    "Coal Dependency",
    "Agricultural Burning",
    "Urban Green Coverage",
    "Meteorological Dispersion",
)


def test_all_six_causes_are_found_in_every_published_record(shared, tokenizer):
    """Against the place behind each factor's name, which the aligner does not look at."""
    total = AlignmentStats()
    for part in ("train", "iid_test", "ood_test"):
        records = read_records(shared / f"data/cat_reference/STG_H/STG_H_{part}.jsonl")
        examples, stats = align_records(records, tokenizer, max_length=256)
        total += stats
        encoded = tokenizer([record.text for record in records])
        for n, (record, example) in enumerate(zip(records, examples, strict=True)):
            for name, cause in zip(CAUSAL, record.important[0].causes, strict=True):
                start = record.text.index(f"{name}: {cause.text}") + len(name) + 2
                characters = range(start, start + len(cause.text))
                tokens = [encoded.char_to_token(n, character) for character in characters]
                assert example.k_bits[tokens].all()
    assert total == AlignmentStats(spans_asked=35000, spans_found=35000, records=5000)


def test_numbers_of_real_tokenizers(tokenizer):
    record = Record("Coal: 41.9%; Green: 1.9% Answer: ", "12", (note("12", "41.9%"),))
    (example,), _ = align(record, tokenizer=tokenizer)
    ids = example.tokens.tolist()
    (columns,) = {tuple(columns) for columns in pairs(example).values()}
    assert tokenizer.decode([ids[j] for j in columns]).strip() == "41.9%;"
    # Both tokenise "12" as "1", "2", each predicted by the row before.
    assert [tokenizer.decode([ids[i + 1]]) for i in pairs(example)] == ["1", "2"]
    answer = [ids[i] for i in np.flatnonzero(example.target_mask)]
    assert tokenizer.decode(answer[:-1]) == "12"
    assert answer[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1


def test_the_answer_begins_where_it_merges_with_the_space_before(tokenizer):
    (example,), _ = align(Record("Answer: ", "High Risk"), tokenizer=tokenizer)
    ids = example.tokens.tolist()
    first = int(np.flatnonzero(example.target_mask)[0])
    assert tokenizer.decode(ids[:first], skip_special_tokens=True) == "Answer:"
    assert tokenizer.decode(ids[first:-1]).strip() == "High Risk"


def test_a_character_of_several_tokens(tokenizer):
    (example,), _ = align(Record("A: 🦙; 8 ", "4", (note("4", "🦙"),)), tokenizer=tokenizer)
    (columns,) = pairs(example).values()
    assert len(columns) > 1
    assert tokenizer.decode(example.tokens[columns].tolist()).strip() == "🦙"


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_offsets_find_generated_spans(tokenizer, data):
    """Every span of a generated record decodes back to its own words."""
    effect = data.draw(st.sampled_from(["target", "answer"]))
    granularity = data.draw(st.sampled_from(["span", "value"]))
    seed = data.draw(st.integers(0, 10**6))
    (record,) = islice(stg_records(seed=seed, granularity=granularity, effect=effect), 1)
    (example,), stats = align(record, tokenizer=tokenizer)
    assert stats == AlignmentStats(4, 4, records=1)
    ids = example.tokens.tolist()
    columns = np.flatnonzero(example.k_bits.any(axis=1))
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    found = [tokenizer.decode([ids[j] for j in run]).strip() for run in runs]
    assert found == [cause.text for cause in record.important[0].causes]
    effect_tokens = [ids[i + 1] for i in pairs(example)]
    assert tokenizer.decode(effect_tokens).strip() == record.important[0].effect.text


def test_reference_matching_refuses_a_start(shared):
    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers/qwen2.5")
    (record,) = islice(stg_records(seed=0, granularity="value"), 1)
    with pytest.raises(InputError, match='annotated with a start; use match "offsets"'):
        align_records([record], tokenizer, max_length=256, match="reference")
