import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm import conversation
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
    folder = tmp_path_factory.mktemp("tokenizer")
    ours = train(
        "the cat sat on the mat, 12 times in 2024;\n\n  it's été 中文 中文 😀😀 and so on and on" * 3, 330
    )
    ours.save(folder, conversation.TEMPLATE)
    return ours, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), folder


@settings(max_examples=500)
@given(text=texts)
def test_hugging_face_gives_the_same_ids(both, text):
    ours, theirs, _ = both
    assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)
    assert theirs.decode(ours.encode(text), skip_special_tokens=False) == text


@settings(max_examples=50)
@given(turns=st.lists(st.tuples(st.sampled_from(conversation.ROLES), texts), min_size=1, max_size=4))
def test_the_chat_template_writes_the_same_tokens(both, turns):
    transformers = pytest.importorskip("transformers")
    ours, _, folder = both
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": role, "content": text} for role, text in turns]
    spelled = theirs.apply_chat_template(messages, tokenize=False)
    assert theirs.encode(spelled, add_special_tokens=False) == conversation.spell(ours, messages)[0]
    spelled = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert theirs.encode(spelled, add_special_tokens=False) == conversation.prompt(ours, messages)
