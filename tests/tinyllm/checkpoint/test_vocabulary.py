"""vocabulary: text is split as the published patterns say, and chats are written as their models expect.

test_vocabulary_oracle.py compares both with Hugging Face's library, if it is installed.
"""

import gguf_files
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.checkpoint import vocabulary
from tinyllm.data.conversation import encode_conversation, encode_prompt
from tinyllm.errors import TinyllmError

LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TEXT = "It'S  été 1234½ e\u0301\u00a0x!\n\n y"
WORDS = {
    "gpt-2": "It|'|S| | été| 1234½| e|\u0301|\u00a0|x|!|\n\n| y",
    "smollm": "It|'|S| | été| |1|2|3|4|½| e|\u0301|\u00a0|x|!|\n\n| y",
    "llama-bpe": "It|'S| | été| |123|4½| e|\u0301|\u00a0x|!\n\n| y",
    "qwen2": "It|'S| | été| |1|2|3|4|½| é|\u00a0x|!\n\n| y",
}


def tokenizer(specials=LLAMA3, template=None, **more):
    settings = gguf_files.vocabulary(specials, **more) | {"tokenizer.chat_template": template}
    return vocabulary.from_gguf("a.gguf", settings)


@pytest.mark.parametrize("pre", vocabulary.SPLITTERS)
def test_text_is_split_by_the_published_pattern(pre):
    words = [word.decode() for word in tokenizer(pre=pre).split(TEXT.encode())]
    assert words == WORDS[pre].split("|")


@given(st.text(max_size=30))
def test_every_text_comes_back(text):
    words = tokenizer(pre="gpt-2", merges=("a b", "Ã ©"))
    assert words.decode(words.encode(text)) == text


def test_merges_apply_in_order_and_llama_3_looks_up_whole_words_first():
    merges = ("b c", "a b")
    ids = {pre: tokenizer(pre=pre, merges=merges).encode("abc ab") for pre in ("gpt-2", "llama-bpe")}
    assert [len(each) for each in ids.values()] == [4, 4] and len(tokenizer(merges=merges).encode("ab")) == 1
    settings = gguf_files.vocabulary(LLAMA3, merges=(*merges, "ab c"), pre="llama-bpe")
    assert len(vocabulary.from_gguf("a.gguf", settings).encode("abc")) == 1  # merging never makes "abc"
    settings["tokenizer.ggml.pre"] = "gpt-2"
    assert len(vocabulary.from_gguf("a.gguf", settings).encode("abc")) == 2


def test_a_chat_is_chatml_or_llama_3_by_the_special_tokens_and_has_the_system_message_of_the_template():
    chat = [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Yo"}]
    words = tokenizer(LLAMA3, pre="llama-bpe")
    ids, mask = encode_conversation(words, chat)
    assert words.decode(ids) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi <|im_end|><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>"
    )
    assert words.decode([i for i, m in zip(ids, mask) if m]) == "Yo<|eot_id|>"
    head = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert words.decode(encode_prompt(words, chat)).endswith(head)
    template = "{{'<|im_start|>system\\nBe kind.<|im_end|>\\n'}} <|im_start|>"
    words = tokenizer(("<|im_start|>", "<|im_end|>"), template)
    ids, mask = encode_conversation(words, chat)
    assert words.decode(ids).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi ")
    assert ids.count(words.special["<|im_end|>"]) == 3  # none comes from the user's text
    assert words.decode([i for i, m in zip(ids, mask) if m]) == "Yo<|im_end|>"


def test_an_unknown_chat_format_is_refused_and_the_tokens_it_lacks_are_named():
    template = "{% for m in messages %}[INST]{{ m.content }}{% endfor %}"
    for more in ((), ("<|im_start|>", "<|im_end|>")):  # tokens that this template does not use
        words = tokenizer(("<s>", "</s>", "[INST]", *more), template)
        with pytest.raises(TinyllmError, match=r"unknown chat format.*ChatML needs <\|im_end\|>, "):
            encode_prompt(words, [{"role": "user", "content": "Hi"}])
        assert words.encode("Hi")  # it can still continue texts


def test_the_content_of_a_message_is_tokenized_together_with_the_line_before_it():
    words = tokenizer(LLAMA3, pre="llama-bpe", merges=("Ċ Ċ", "ĊĊ Ċ"))
    ids, _ = encode_conversation(words, [{"role": "user", "content": "\nHi"}])
    assert ids.count(words.encode("\n\n\n")[0]) == 1
