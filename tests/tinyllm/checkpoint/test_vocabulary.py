"""vocabulary: a published tokenizer must split text by its own pattern and write chats in its own format.

Otherwise the model gets ids that it never saw in training. test_vocabulary_oracle.py compares the ids with
those of Hugging Face's library.
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


def make(specials=LLAMA3, template=None, **more):
    """A tokenizer from the settings of a GGUF file."""
    settings = gguf_files.vocabulary(specials, **more) | {"tokenizer.chat_template": template}
    return vocabulary.from_gguf("a.gguf", settings)


@pytest.mark.parametrize("pre", vocabulary.SPLITTERS)
def test_text_is_split_by_the_published_pattern(pre):
    words = [word.decode() for word in make(pre=pre).split(TEXT.encode())]
    assert words == WORDS[pre].split("|")


@given(st.text(max_size=30))
def test_the_ids_of_any_text_decode_to_the_text(text):
    tokenizer = make(pre="gpt-2", merges=("a b", "Ã ©"))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_merges_apply_in_order(pre):
    tokenizer = make(pre=pre, merges=("b c", "a b"))
    assert len(tokenizer.encode("abc ab")) == 4  # a, bc, space, ab
    assert len(tokenizer.encode("ab")) == 1


@pytest.mark.parametrize("pre, count", [("gpt-2", 2), ("llama-bpe", 1)])
def test_llama_3_looks_up_whole_words_before_it_merges(pre, count):
    """Merging alone gives "a" and "bc", because "b c" is the first merge."""
    tokenizer = make(pre=pre, merges=("b c", "a b", "ab c"))
    assert len(tokenizer.encode("abc")) == count


CHAT = [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Yo"}]


def test_a_tokenizer_with_the_special_tokens_of_llama_3_writes_llama_3_chats():
    tokenizer = make(LLAMA3, pre="llama-bpe")
    ids, mask = encode_conversation(tokenizer, CHAT)
    assert tokenizer.decode(ids) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi <|im_end|><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>"
    )
    assert tokenizer.decode([i for i, m in zip(ids, mask) if m]) == "Yo<|eot_id|>"
    head = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert tokenizer.decode(encode_prompt(tokenizer, CHAT)).endswith(head)


def test_a_chatml_chat_begins_with_the_system_message_of_the_template():
    template = "{{'<|im_start|>system\\nBe kind.<|im_end|>\\n'}} <|im_start|>"
    tokenizer = make(("<|im_start|>", "<|im_end|>"), template)
    ids, mask = encode_conversation(tokenizer, CHAT)
    assert tokenizer.decode(ids).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi ")
    assert ids.count(tokenizer.special["<|im_end|>"]) == 3  # in the user's text it is plain text
    assert tokenizer.decode([i for i, m in zip(ids, mask) if m]) == "Yo<|im_end|>"


def test_an_unknown_chat_format_is_refused_and_the_error_names_the_missing_tokens():
    template = "{% for m in messages %}[INST]{{ m.content }}{% endfor %}"
    for unused in ((), ("<|im_start|>", "<|im_end|>")):
        tokenizer = make(("<s>", "</s>", "[INST]", *unused), template)
        with pytest.raises(TinyllmError, match=r"unknown chat format.*ChatML format needs <\|im_end\|>, "):
            encode_prompt(tokenizer, [{"role": "user", "content": "Hi"}])
        assert tokenizer.encode("Hi")  # so the model can still continue text


def test_the_content_of_a_message_is_tokenized_together_with_the_newlines_before_it():
    tokenizer = make(LLAMA3, pre="llama-bpe", merges=("Ċ Ċ", "ĊĊ Ċ"))
    ids, _ = encode_conversation(tokenizer, [{"role": "user", "content": "\nHi"}])
    assert ids.count(tokenizer.encode("\n\n\n")[0]) == 1
