import json
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import tokenizer as T
from tinyllm.tokenizer import SPECIALS, Tokenizer, TokenizerError, train

anything = st.text(st.characters(codec=None), max_size=40)  # lone surrogates too
likely = st.text(st.sampled_from("aab  \n\t.,1é中<|end|>"), max_size=60)
texts = anything | likely
trained = st.builds(train, st.lists(likely, max_size=4), st.integers(256, 300))


def slowly(merges, data):
    """Words, then one merge at a time: the lowest pair, the leftmost place."""
    rank, out = {pair: i for i, pair in enumerate(merges)}, []
    for word in T._words(data):
        ids = list(word)
        while True:
            there = [(rank[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in rank]
            if not there:
                break
            best, at = min(there)
            ids[at : at + 2] = [256 + best]
        out += ids
    return out


def train_slowly(documents, vocab):
    """Every pair counted anew for every merge."""
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
def test_every_string_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(trained, st.binary(max_size=60))
def test_all_bytes_come_back(tokenizer, data):
    ids = tokenizer.encode(data)
    assert tokenizer.decode_bytes(ids) == data
    assert isinstance(tokenizer.decode(ids), str)


@given(trained, texts, st.sampled_from(SPECIALS))
def test_special_tokens_never_arise_from_text(tokenizer, text, special):
    assert all(i < tokenizer.ordinary for i in tokenizer.encode(text + special + text))
    assert tokenizer.decode([tokenizer.special[special]]) == special


@given(trained, st.integers(0, 10**12))
def test_digits_are_one_token_each(tokenizer, number):
    assert len(tokenizer.encode(str(number))) == len(str(number))


@given(trained, texts)
def test_merging_everywhere_at_once_equals_one_at_a_time(tokenizer, text):
    data = text.encode("utf-8", "surrogatepass")
    assert tokenizer.encode(text) == slowly(tokenizer.merges, data)


@given(st.lists(likely, max_size=4), st.integers(256, 300))
def test_incremental_training_equals_counting_anew(documents, vocab):
    assert train(documents, vocab).merges == train_slowly(documents, vocab)


@given(texts)
def test_words_lose_nothing_and_ignore_the_engine(text):
    """The same cuts on characters as on bytes."""
    import re

    data = text.encode("utf-8", "surrogatepass")
    words = T._words(data)
    assert b"".join(words) == data
    assert [word.encode("utf-8", "surrogatepass") for word in re.findall(T.PATTERN, text)] == words


@given(trained, texts)
def test_saved_and_loaded_is_the_same(tmp_path_factory, tokenizer, text):
    a, b = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    tokenizer.save(a, "template")
    again = Tokenizer.load(a)
    again.save(b, "template")
    assert again.encode(text) == tokenizer.encode(text) and len(again) == len(tokenizer)
    assert (a / "tokenizer.json").read_bytes() == (b / "tokenizer.json").read_bytes()


def test_plain_bytes():
    tokenizer = train("anything at all", 256)
    assert tokenizer.encode("aé") == [97, 0xC3, 0xA9] and len(tokenizer) == 256 + len(SPECIALS)


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(TokenizerError, match="255.*choose 256"):
        train("text", 255)


def test_ids_that_do_not_exist_are_refused():
    tokenizer = train("text", 256)
    for wrong in (-1, len(tokenizer)):
        with pytest.raises(TokenizerError, match=str(wrong)):
            tokenizer.decode([97, wrong])


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_a_damaged_file_is_refused_or_means_the_same(tmp_path_factory, at, junk):
    folder = tmp_path_factory.mktemp("t")
    tokenizer = train("hello hello", 258)
    tokenizer.save(folder)
    data = bytearray((folder / "tokenizer.json").read_bytes())
    data[at % len(data) : at % len(data) + len(junk)] = junk
    (folder / "tokenizer.json").write_bytes(data)
    try:
        assert Tokenizer.load(folder).merges == tokenizer.merges
    except TokenizerError as error:
        assert "tokenizer.json" in str(error)


def test_other_tokenizers_are_refused_by_name(tmp_path):
    train("text", 256).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    other = json.loads(path.read_text(encoding="utf-8"))
    other["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(TokenizerError, match="cuts text in another way"):
        Tokenizer.load(tmp_path)


def test_long_words_take_linear_time():
    tokenizer = train("the theme of the thesis then there", 300)

    def seconds(n):
        began = time.perf_counter()
        tokenizer.encode("thesis" * n)
        return time.perf_counter() - began

    seconds(10)
    assert seconds(100_000) < 60 * max(seconds(10_000), 1e-3)  # quadratic would be 100 times
