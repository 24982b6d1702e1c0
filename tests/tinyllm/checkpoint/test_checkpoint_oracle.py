"""checkpoint, compared with transformers and torch: logits, gradients, and where a score is read."""

import numpy as np
import pytest

from tinyllm import checkpoint
from tinyllm.objectives import weighted_nll
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Parameters, Transformer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle


def random_model(**shape):
    rng = np.random.default_rng(0)
    model = Transformer(Config(vocab=50, context=16, layers=3, width=24, heads=4, **shape))
    model.params.flat[:] = rng.standard_normal(model.params.flat.shape) * 0.3  # also the gains
    return model, rng.integers(0, 50, (3, 12))


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tied": False},
        {"kv_heads": 2, "head_dim": 10},
        {"kv_heads": 1, "theta": 123.0},
        {"causal": False},
        {"head": "score"},
    ],
)
def test_transformers_opens_our_folders_and_computes_our_logits(tmp_path, shape):
    model, ids = random_model(**shape)
    checkpoint.save(tmp_path / "m", model)
    with torch.no_grad():
        if model.config.head == "score":
            ids %= 49  # no padding tokens: transformers then reads the score at the last position
            theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
                tmp_path / "m", pad_token_id=49
            )
            ours = model.logits(ids)[:, -1:]
        else:
            theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
            ours = model.logits(ids)
        np.testing.assert_allclose(ours, theirs(torch.tensor(ids)).logits.numpy(), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_we_open_the_folders_of_transformers(tmp_path, dtype, tied, shards):
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=3,
        head_dim=10,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 321.0},
    )
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    theirs.to(getattr(torch, dtype)).save_pretrained(tmp_path / "m", max_shard_size=shards)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    ours, tokenizer = checkpoint.load(tmp_path / "m")
    ids = np.random.default_rng(1).integers(0, 50, (2, 12))
    with torch.no_grad():
        np.testing.assert_allclose(ours.logits(ids), theirs(torch.tensor(ids)).logits.numpy(), atol=1e-4)
    assert tokenizer is None and ours.config.theta == 321.0


@pytest.mark.parametrize("shape", [{}, {"tied": False, "kv_heads": 2}])
def test_the_whole_gradient_equals_that_of_torch(tmp_path, shape):
    model, ids = random_model(**shape)
    targets = np.roll(ids, -1, 1)
    weights = np.random.default_rng(2).standard_normal(ids.shape).astype(np.float32)
    out, cache = model.forward(ids)
    loss, dout = weighted_nll(out, targets, weights, 7.0)
    grads = Parameters(model.config)
    model.backward(dout, cache, grads)
    checkpoint.save(tmp_path / "m", model)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "m")
    nll = torch.nn.functional.cross_entropy(
        theirs(torch.tensor(ids)).logits.transpose(1, 2), torch.tensor(targets), reduction="none"
    )
    total = (nll * torch.tensor(weights)).sum() / 7
    total.backward()
    with torch.no_grad():  # save torch's gradients as parameters: `load` returns them in our names and order
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(tmp_path / "g")
    expected = checkpoint.load(tmp_path / "g")[0].params
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    for name, gradient in grads.items():
        assert np.abs(gradient - expected[name]).max() <= 1e-5 * max(1, np.abs(expected[name]).max()), name


def test_transformers_reads_the_score_where_we_do(tmp_path):
    """At the last token, <|end|>, so the padding token must not be <|end|>."""
    tokenizer = train("hello hello", 258)
    model = Transformer(Config(vocab=len(tokenizer), context=16, layers=2, width=8, heads=2, head="score"))
    model.params.flat[:] = np.random.default_rng(0).standard_normal(model.params.flat.shape) * 0.4
    checkpoint.save(tmp_path / "m", model, tokenizer)
    begin, end, pad = (tokenizer.special[f"<|{name}|>"] for name in ("begin", "end", "mask"))
    ids = np.array([[begin, 70, 71, 72, end], [begin, 73, end, pad, pad]])
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        scores = theirs(torch.tensor(ids)).logits.numpy()[:, 0]
    np.testing.assert_allclose(model.logits(ids)[[0, 1], [4, 2]], scores, atol=1e-4)
