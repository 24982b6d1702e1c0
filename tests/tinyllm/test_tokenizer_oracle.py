"""tokenizer, compared with Hugging Face's tokenizers and transformers, which read our file."""

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
    """Our tokenizer, theirs, and the folder that theirs is read from."""
    folder = tmp_path_factory.mktemp("tokenizer")
    text = "the cat sat on the mat, 12 times in 2024;\n\n  it's été 中文 中文 😀😀 and so on and on" * 3
    ours = train(text, 330)
    contents, config = ours.to_json(TEMPLATE)
    write_json(folder / "tokenizer.json", contents)
    write_json(folder / "tokenizer_config.json", config)
    return ours, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), folder


@settings(max_examples=500)
@given(text=texts)
def test_hugging_face_gives_the_same_ids(both, text):
    ours, theirs, _ = both
    assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)
    assert theirs.decode(ours.encode(text), skip_special_tokens=False) == text


@settings(max_examples=50)
@given(turns=st.lists(st.tuples(st.sampled_from(ROLES), texts), min_size=1, max_size=4))
def test_the_chat_template_gives_the_same_tokens(both, turns):
    transformers = pytest.importorskip("transformers")
    ours, _, folder = both
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered = theirs.apply_chat_template(messages, tokenize=False)
    assert theirs.encode(rendered, add_special_tokens=False) == encode_conversation(ours, messages)[0]
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert theirs.encode(rendered, add_special_tokens=False) == encode_prompt(ours, messages)
