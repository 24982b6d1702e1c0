"""vocabulary, compared with Hugging Face's tokenizers: any text and any chat must get the same ids."""

import json

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

# Unassigned characters are left out: Hugging Face's library may have a newer Unicode version than Python.
known = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=20)
texts = st.lists(known | st.sampled_from(PIECES), max_size=8).map("".join)


def trained(pre, **options):
    """A tokenizer from Hugging Face's library, trained on TEXT, that splits text as `pre` does."""
    steps, _ = vocabulary.SPLITTERS[pre]
    names = {"Digits": tokenizers.pre_tokenizers.Digits, "ByteLevel": tokenizers.pre_tokenizers.ByteLevel}
    splitters = []
    for step in steps:
        if step["type"] == "Split":
            pattern = tokenizers.Regex(step["pattern"]["Regex"])
            splitters.append(tokenizers.pre_tokenizers.Split(pattern, "isolated"))
        elif step["type"] == "Digits":
            splitters.append(names["Digits"](individual_digits=True))
        else:
            splitters.append(names["ByteLevel"](add_prefix_space=False, use_regex=step["use_regex"]))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
    sequence = tokenizers.pre_tokenizers.Sequence
    tokenizer.pre_tokenizer = sequence(splitters) if len(splitters) > 1 else splitters[0]
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = tokenizers.normalizers.NFC()
    special = LLAMA3 if pre == "llama-bpe" else CHATML
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=[] if pre == "smollm" else tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if pre == "qwen2":
        tokenizer.add_tokens(["<tool_call>"])
    return tokenizer


@pytest.fixture(scope="module", params=vocabulary.SPLITTERS)
def both(request, tmp_path_factory):
    """(our tokenizer, Hugging Face's), with the same vocabulary and merges."""
    folder = tmp_path_factory.mktemp("vocabulary")
    reference = trained(request.param, ignore_merges=request.param == "llama-bpe")
    reference.save(str(folder / "tokenizer.json"))
    return vocabulary.load(folder), reference


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_any_text_gets_the_same_ids(both, text):
    tokenizer, reference = both
    assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids


def test_a_long_text_of_made_up_words_gets_the_same_ids(both):
    tokenizer, reference = both
    rng = np.random.default_rng(0)
    text = " ".join("".join(rng.choice(list("theanosi12é"), rng.integers(1, 9))) for _ in range(2000))
    assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids


def test_a_word_gets_the_same_ids_whether_several_merges_make_it_or_none_does(tmp_path):
    settings = gguf_files.vocabulary(merges=("a b", "b c", "ab c", "a bc", "abc d"), pre="llama-bpe")
    settings["tokenizer.ggml.tokens"].append("xyz")  # no merge makes xyz, but Llama 3 looks up whole words
    settings["tokenizer.ggml.token_type"].append(1)
    del settings["tokenizer.ggml.tokens"][-3]  # "abc" is in the list twice
    del settings["tokenizer.ggml.token_type"][-3]
    tokenizer = vocabulary.from_gguf("a.gguf", settings)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer.contents))
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("abcd", "xyz", "xyza", "bcabcd", "aabcbcd xyz"):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids, text
    assert len(tokenizer.encode("xyz")) == len(tokenizer.encode("abcd")) == 1


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
def test_the_ids_of_a_chat_are_the_same_as_with_the_published_template(pre, turns, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("chat")
    trained(pre).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATES[pre]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer, reference = vocabulary.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered = reference.apply_chat_template(messages, tokenize=False)
    assert encode_conversation(tokenizer, messages)[0] == reference.encode(rendered, add_special_tokens=False)
    rendered = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert encode_prompt(tokenizer, messages) == reference.encode(rendered, add_special_tokens=False)
