"""tokenizer: decoding returns the exact text, and the fast algorithms give the same results as plain ones.

No text may encode to a special token: otherwise a user could write a message in the name of the assistant.
"""

import json
import random
import re
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import tokenizer as T
from tinyllm.checkpoint import vocabulary
from tinyllm.errors import TinyllmError
from tinyllm.tokenizer import SPECIALS, Tokenizer, train

anything = st.text(st.characters(codec=None), max_size=40)  # lone surrogates too
likely = st.text(st.sampled_from("aab  \n\t.,1é中<|end|>"), max_size=60)
texts = anything | likely
trained = st.builds(train, st.lists(likely, max_size=4), st.integers(256, 300))


def encode_slowly(merges, data):
    """Split into words, then merge one pair at a time: the earliest learned one, at its leftmost place."""
    rank, out = {pair: i for i, pair in enumerate(merges)}, []
    for word in T._words(data):
        ids = list(word)
        while True:
            possible = [(rank[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in rank]
            if not possible:
                break
            best, at = min(possible)
            ids[at : at + 2] = [256 + best]
        out += ids
    return out


def train_slowly(documents, vocab):
    """Count every pair again for every merge."""
    words = Counter(word for d in documents for word in T._words(d.encode("utf-8", "surrogatepass")))
    words, merges = [(list(word), n) for word, n in words.items()], []
    while len(merges) < vocab - 256:
        counts = Counter()
        for ids, n in words:
            for pair in pairwise(ids):
                counts[pair] += n
        pair = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if pair is None or counts[pair] < 2:
            break
        for ids, _ in words:
            at = 0
            while at < len(ids) - 1:
                if (ids[at], ids[at + 1]) == pair:
                    ids[at : at + 2] = [256 + len(merges)]
                at += 1
        merges.append(pair)
    return merges


@given(trained, texts)
def test_decoding_returns_the_string_that_was_encoded(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(trained, st.binary(max_size=60))
def test_decoding_returns_the_bytes_that_were_encoded(tokenizer, data):
    ids = tokenizer.encode(data)
    assert tokenizer.decode_bytes(ids) == data
    assert isinstance(tokenizer.decode(ids), str)


@given(trained, texts, st.sampled_from(SPECIALS))
def test_no_text_encodes_to_a_special_token(tokenizer, text, special):
    assert all(i < tokenizer.ordinary for i in tokenizer.encode(text + special + text))
    assert tokenizer.decode([tokenizer.special[special]]) == special


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=6))
def test_every_digit_is_a_token_even_in_a_number_that_was_in_the_training_text(numbers):
    tokenizer = train([str(number) for number in numbers] * 3, 300)
    for number in numbers:
        assert len(tokenizer.encode(str(number))) == len(str(number))


@given(trained, texts)
def test_encoding_equals_merging_one_pair_at_a_time(tokenizer, text):
    data = text.encode("utf-8", "surrogatepass")
    assert tokenizer.encode(text) == encode_slowly(tokenizer.merges, data)


@given(st.lists(likely, max_size=4), st.integers(256, 300))
def test_training_equals_counting_all_pairs_again_for_every_merge(documents, vocab):
    assert train(documents, vocab).merges == train_slowly(documents, vocab)


@given(st.lists(st.text("ab", min_size=2, max_size=9), min_size=2, max_size=5))
def test_a_run_of_one_letter_is_merged_from_the_left_in_every_word(words):
    """In "aab" and "baaab" the first two a's merge. Merging from the right could change the next merges."""
    documents = ["aab", "baaab", *words] * 2
    assert train(documents, 270).merges == train_slowly(documents, 270)


@given(texts)
def test_splitting_the_bytes_of_a_text_into_words_equals_splitting_its_characters(text):
    data = text.encode("utf-8", "surrogatepass")
    words = T._words(data)
    assert b"".join(words) == data
    assert [word.encode("utf-8", "surrogatepass") for word in re.findall(T.PATTERN, text)] == words


def save(tokenizer, folder):
    contents, config = tokenizer.to_json("template")
    (folder / "tokenizer.json").write_text(json.dumps(contents, ensure_ascii=False), encoding="utf-8")
    return contents, config


@given(trained, texts)
def test_a_tokenizer_that_was_saved_and_loaded_is_the_same(tmp_path_factory, tokenizer, text):
    folder = tmp_path_factory.mktemp("tokenizer")
    saved = save(tokenizer, folder)
    loaded = vocabulary.load(folder)
    assert loaded.encode(text) == tokenizer.encode(text) and len(loaded) == len(tokenizer)
    assert loaded.to_json("template") == saved


def test_with_a_vocabulary_of_256_every_id_is_a_byte():
    tokenizer = train("anything at all", 256)
    assert tokenizer.encode("aé") == [97, 0xC3, 0xA9] and len(tokenizer) == 256 + len(SPECIALS)


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_a_damaged_file_is_refused_or_gives_the_same_tokenizer(tmp_path_factory, at, junk):
    folder = tmp_path_factory.mktemp("t")
    tokenizer = train("hello hello", 258)
    save(tokenizer, folder)
    data = bytearray((folder / "tokenizer.json").read_bytes())
    data[at % len(data) : at % len(data) + len(junk)] = junk
    (folder / "tokenizer.json").write_bytes(data)
    try:
        assert vocabulary.load(folder).merges == tokenizer.merges
    except TinyllmError as error:
        assert "tokenizer.json" in str(error)


def test_unsupported_tokenizers_are_refused_with_the_reason(tmp_path):
    contents, _ = save(train("hello hello", 258), tmp_path)
    path, vocab = tmp_path / "tokenizer.json", contents["model"]["vocab"]
    for change, message in (
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer .*Whitespace.* is not supported"),
        ({"normalizer": {"type": "NFC"}}, "its type, normalizer"),
        ({"model": contents["model"] | {"type": "Unigram"}}, "its type, normalizer"),
        ({"model": contents["model"] | {"vocab": vocab | {"he": 400}}}, "its type, normalizer"),
        ({"added_tokens": contents["added_tokens"][:-1]}, "its type, normalizer"),
        ({"added_tokens": None}, "whose ids we can reproduce: it is damaged"),
    ):
        path.write_text(json.dumps(contents | change), encoding="utf-8")
        with pytest.raises(TinyllmError, match=message) as error:
            vocabulary.load(tmp_path)
        assert str(path) in str(error.value)


def test_a_full_cache_is_emptied_and_the_ids_stay_the_same():
    tokenizer = train("the cat, the hat", 300)
    before = tokenizer.encode("the cat")
    tokenizer._ids_of_word.update(dict.fromkeys(range(T.CACHE_LIMIT)))
    tokenizer.encode("another")
    assert len(tokenizer._ids_of_word) == 1 and tokenizer.encode("the cat") == before


def test_training_stops_when_no_pair_occurs_twice():
    assert train("abcdef", 300).merges == [] and len(train("abab", 300).merges) == 1


# ---- long words: one line of Chinese is one word


@given(st.text("ab中文é", max_size=300), st.integers(256, 400))
def test_the_limits_of_the_cache_do_not_change_the_ids(text, vocab):
    tokenizer = train(["ab" * 40, "中文é" * 9, text], vocab)
    ids = tokenizer.encode(text)
    for name, limit in (("LONG", 0), ("LONG", 10**9), ("CACHE_LIMIT", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(T, name, limit)
            assert Tokenizer(tokenizer.merges).encode(text) == ids


def test_encoding_a_long_word_takes_linear_time():
    tokenizer = train("the theme of the thesis then there", 300)

    def seconds(n):
        tokenizer._ids_of_word.clear()
        start = time.process_time()
        tokenizer.encode("thesis" * n)
        return time.process_time() - start

    short, long = (min(seconds(n) for _ in range(3)) for n in (2_000, 20_000))
    assert long < 50 * max(short, 1e-3)  # with quadratic time, the ratio would be 100


def test_training_on_a_long_word_takes_less_than_quadratic_time():
    assert len(train(["a" * 200_000], 300).merges) == 17
    rng = random.Random(0)
    line = "".join(chr(rng.randrange(0x4E00, 0x4F00)) for _ in range(40_000))

    def seconds(n):
        start = time.process_time()
        tokenizer = train([line[:n]], 600)
        assert tokenizer.decode(tokenizer.encode(line)) == line
        return time.process_time() - start

    assert seconds(40_000) < 20 * max(seconds(5_000), 0.05)
