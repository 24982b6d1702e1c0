"""vocabulary, compared with Hugging Face's tokenizers: the same ids for any text, the same chats."""

import json
import unicodedata

import gguf_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.checkpoint import vocabulary
from tinyllm.data.conversation import ROLES, encode_conversation, encode_prompt

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.oracle

TEXT = """The quick brown fox doesn't jump; it's 12345 times LOUDER than we'll know. été naïve Straße
    def f(x):  return x**2 + 10\n\n\n中文 日本語 한국어 русский язык  ١٢٣ ½ ² 😀😀
    don'T I'VE\r\n\ttab\u00a0nbsp e\u0301
"""
TEXT *= 4
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
PIECES = [
    "  ",
    "\n",
    "\r\n",
    " \n ",
    "\u00a0",
    "\u2028",
    "\x85",
    "\x1c",
    "'s",
    "'S",
    "'ſ",
    "'LL",
    "123",
    "4567890",
]
PIECES += [
    "\u0301",
    "e\u0301",
    "\u212b",
    "中文",
    "😀",
    "don't",
    "<tool_call>",
    "a b",
    "\x00",
    "ǅ",
    "ª",
    "Ⅻ",
    "½²",
]
PIECES += ["\U0001d7d8", "\u200d", "١٢"]

# Characters newer than Python's tables are left out: only Hugging Face's library may know them as letters.
known = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=20)
texts = st.lists(known | st.sampled_from(PIECES), max_size=8).map("".join)


def trained(pre, **options):
    """A tokenizer that Hugging Face's library trains on TEXT, with the steps of `pre`."""
    steps, _ = vocabulary.SPLITTERS[pre]
    names = {"Digits": tokenizers.pre_tokenizers.Digits, "ByteLevel": tokenizers.pre_tokenizers.ByteLevel}
    made = []
    for step in steps:
        if step["type"] == "Split":
            pattern = tokenizers.Regex(step["pattern"]["Regex"])
            made.append(tokenizers.pre_tokenizers.Split(pattern, "isolated"))
        elif step["type"] == "Digits":
            made.append(names["Digits"](individual_digits=True))
        else:
            made.append(names["ByteLevel"](add_prefix_space=False, use_regex=step["use_regex"]))
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(made) if len(made) > 1 else made[0]
    theirs.decoder = tokenizers.decoders.ByteLevel()
    if pre == "qwen2":
        theirs.normalizer = tokenizers.normalizers.NFC()
    special = LLAMA3 if pre == "llama-bpe" else CHATML
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=[] if pre == "smollm" else tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    theirs.train_from_iterator([TEXT], trainer)
    if pre == "qwen2":
        theirs.add_tokens(["<tool_call>"])
    return theirs


@pytest.fixture(scope="module", params=vocabulary.SPLITTERS)
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    theirs = trained(request.param, ignore_merges=request.param == "llama-bpe")
    theirs.save(str(folder / "tokenizer.json"))
    return vocabulary.load(folder), theirs


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_the_ids_are_those_of_hugging_face(both, text):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert all(unicodedata.category(c) for c in text)


def test_many_new_words_at_once_get_the_same_ids(both):
    ours, theirs = both
    rng = np.random.default_rng(0)
    text = " ".join("".join(rng.choice(list("theanosi12é"), rng.integers(1, 9))) for _ in range(2000))
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_a_word_that_several_pairs_make_and_one_that_no_merge_reaches(tmp_path):
    words = gguf_files.vocabulary(merges=("a b", "b c", "ab c", "a bc", "abc d"), pre="llama-bpe")
    words["tokenizer.ggml.tokens"].append("xyz")  # Llama 3 looks whole words up
    words["tokenizer.ggml.token_type"].append(1)
    del words["tokenizer.ggml.tokens"][-3]  # "abc" is in the list twice
    del words["tokenizer.ggml.token_type"][-3]
    ours = vocabulary.from_gguf("a.gguf", words)
    (tmp_path / "tokenizer.json").write_text(json.dumps(ours.contents))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("abcd", "xyz", "xyza", "bcabcd", "aabcbcd xyz"):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text
    assert len(ours.encode("xyz")) == len(ours.encode("abcd")) == 1


TEMPLATES = {
    "smollm": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama-bpe": "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
}


@pytest.mark.parametrize("pre", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.tuples(st.sampled_from(ROLES[:3]), texts), min_size=1, max_size=4))
def test_a_chat_is_what_the_published_template_writes(pre, turns, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("chat")
    trained(pre).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATES[pre]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = vocabulary.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered = theirs.apply_chat_template(messages, tokenize=False)
    assert encode_conversation(ours, messages)[0] == theirs.encode(rendered, add_special_tokens=False)
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert encode_prompt(ours, messages) == theirs.encode(rendered, add_special_tokens=False)
