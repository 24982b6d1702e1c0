"""tokenizer: Hugging Face's libraries load the saved tokenizer.json and produce the same ids.

If the ids differed, a model of this project would receive wrong tokens in other programs.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.checkpoint.files import write_json
from tinyllm.data.conversation import ROLES, TEMPLATE, encode_conversation, encode_prompt
from tinyllm.tokenizer import SPECIALS, train

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.oracle

pieces = st.text(max_size=20) | st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\u00a0", "\u2028", "\u0085", "123", "don't", "é", "中文", "😀", "\u0301"]
)
texts = (
    st.lists(pieces, max_size=8).map("".join).filter(lambda text: not any(name in text for name in SPECIALS))
)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """This project's tokenizer, a copy loaded by Hugging Face's library, and the folder of its files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    text = "the cat sat on the mat, 12 times in 2024;\n\n  it's été 中文 中文 😀😀 and so on and on" * 3
    tokenizer = train(text, 330)
    contents, config = tokenizer.to_json(TEMPLATE)
    write_json(folder / "tokenizer.json", contents)
    write_json(folder / "tokenizer_config.json", config)
    return tokenizer, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), folder


@settings(max_examples=500)
@given(text=texts)
def test_hugging_faces_library_gives_the_same_ids(both, text):
    tokenizer, reference, _ = both
    assert reference.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)
    assert reference.decode(tokenizer.encode(text), skip_special_tokens=False) == text


@settings(max_examples=50)
@given(turns=st.lists(st.tuples(st.sampled_from(ROLES), texts), min_size=1, max_size=4))
def test_the_chat_template_gives_the_same_tokens_as_encode_conversation(both, turns):
    transformers = pytest.importorskip("transformers")
    tokenizer, _, folder = both
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered = reference.apply_chat_template(messages, tokenize=False)
    ids, _ = encode_conversation(tokenizer, messages)
    assert reference.encode(rendered, add_special_tokens=False) == ids
    rendered = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert reference.encode(rendered, add_special_tokens=False) == encode_prompt(tokenizer, messages)
