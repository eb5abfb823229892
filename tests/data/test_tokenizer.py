import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.data.tokenizer import END, PIECE, UNKNOWN, train_tokenizer
from cat_jax.tasks.stg import stg_records
from cat_jax.tasks.stg_h import stg_h_records

GAMES = {"stg": stg_records, "stg_h": stg_h_records}


def texts(game, count=60, **options):
    return [record.text for record in islice(GAMES[game](**{"seed": 0} | options), count)]


@pytest.fixture(scope="module", params=GAMES)
def game(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(game):
    return train_tokenizer(texts(game))


@pytest.fixture(scope="module")
def unseen(game):
    """Other rows of every split."""
    return [row for split in ("train", "iid", "ood") for row in texts(game, split=split, seed=7)]


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_decoding_gives_unseen_rows_back(tokenizer, unseen):
    for text in unseen:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_offsets_cover_the_text_without_gaps(tokenizer, unseen):
    for text in unseen:
        encoded = tokenizer(text, return_offsets_mapping=True)
        starts, ends = zip(*encoded["offset_mapping"], strict=True)
        assert (starts[0], ends[-1]) == (0, len(text))
        assert starts[1:] == ends[:-1]
        names = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        assert names == [text[a:b] for a, b in encoded["offset_mapping"]]


def test_the_answer_is_one_token_apart_from_what_leads_to_it(game, tokenizer):
    for record in islice(GAMES[game](seed=7), 60):
        assert pieces(tokenizer, record.text)[-2:] == [" Answer: ", record.target]
        prompt = tokenizer(record.input)["input_ids"]
        assert tokenizer(record.text)["input_ids"][:-1] == prompt


def test_factors_are_a_name_and_a_number():
    tokenizer = train_tokenizer(texts("stg"))
    row = "Smoking: 8, Weight: 10 Answer: Low Risk"
    expected = ["Smoking: ", "8", ", Weight: ", "10", " Answer: ", "Low Risk"]
    # A row without an introduction starts with a name: a piece that these texts do not have.
    assert pieces(tokenizer, row) == [UNKNOWN, *expected[1:]]
    short = train_tokenizer(texts("stg", prefix=False))
    assert pieces(short, row) == expected


def test_numbers_need_no_training_text():
    tokenizer = train_tokenizer([])
    for number in range(100):
        assert pieces(tokenizer, str(number)) == [str(number)]
    for number in range(100, 11_000, 7):
        assert "".join(pieces(tokenizer, str(number))) == str(number)
    assert len(tokenizer) == 112


def test_what_training_never_saw_is_unknown():
    tokenizer = train_tokenizer(["Weight: 5"])
    ids = tokenizer("Weight: 10, Height: 7")["input_ids"]
    unknown = tokenizer.unk_token_id
    numbers = tokenizer.convert_tokens_to_ids(["10", "7"])
    assert ids == [ids[0], numbers[0], unknown, numbers[1]]
    assert ids[0] == tokenizer.convert_tokens_to_ids("Weight: ") != unknown


def test_vocabulary_follows_from_counts_alone():
    rows = texts("stg")
    counted = Counter([*map(str, range(100)), *(f"0{n}" for n in range(10))])
    for row in rows:
        names = re.findall(PIECE, row)
        between = re.split(PIECE, row)
        counted.update(piece for piece in (*names, *between) if piece)
    ordered = sorted(counted, key=lambda piece: (-counted[piece], piece))
    expected = {piece: i for i, piece in enumerate([UNKNOWN, END, *ordered])}
    assert train_tokenizer(rows).get_vocab() == expected
    assert train_tokenizer(reversed(rows)).get_vocab() == expected


def test_end_and_padding_tokens_are_no_text(tokenizer):
    assert tokenizer.is_fast
    assert tokenizer.eos_token_id == tokenizer.pad_token_id != tokenizer.unk_token_id
    ids = [tokenizer.convert_tokens_to_ids("7"), tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "7"
    assert tokenizer("7")["input_ids"] == ids[:1]


ROUGH = st.text(st.sampled_from("AZaz09 ,;.:()-%\n\té日😀"), max_size=30)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROUGH, max_size=4))
def test_any_training_text_comes_back(rows):
    tokenizer = train_tokenizer(rows)
    for row in rows:
        encoded = tokenizer(row, return_offsets_mapping=True)
        assert tokenizer.decode(encoded["input_ids"]) == row
        assert "".join(row[a:b] for a, b in encoded["offset_mapping"]) == row


@pytest.mark.parametrize("text", ["", "A causes B. Does B cause C7? Answer: Yes", " é  x,y\n"])
def test_words_and_what_is_between_them(text):
    tokenizer = train_tokenizer([text], "words")
    encoded = tokenizer(text, return_offsets_mapping=True)
    expected = [x for x in re.split(r"(\w+)", text) if x]
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == expected
    assert "".join(text[a:b] for a, b in encoded["offset_mapping"]) == text
    assert tokenizer.decode(encoded["input_ids"]) == text
    assert tokenizer.unk_token_id not in encoded["input_ids"]
