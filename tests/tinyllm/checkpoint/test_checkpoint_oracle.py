"""checkpoint, compared with transformers and torch: logits, scores and gradients must be the same.

With a wrong order of channels or a wrong key in config.json, a model still loads, but its results are wrong.
"""

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
    model.params.flat[:] = rng.standard_normal(model.params.flat.shape) * 0.3  # the gains too
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
def test_transformers_computes_our_logits_from_our_checkpoint(tmp_path, shape):
    model, ids = random_model(**shape)
    checkpoint.save(tmp_path / "m", model)
    with torch.no_grad():
        if model.config.head == "score":
            ids %= 49  # without padding tokens, transformers reads the score at the last position
            published = transformers.AutoModelForSequenceClassification.from_pretrained(
                tmp_path / "m", pad_token_id=49
            )
            logits = model.logits(ids)[:, -1:]
        else:
            published = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
            logits = model.logits(ids)
        np.testing.assert_allclose(logits, published(torch.tensor(ids)).logits.numpy(), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_we_compute_the_same_logits_as_transformers_from_its_checkpoint(tmp_path, dtype, tied, shards):
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
    published = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    published.to(getattr(torch, dtype)).save_pretrained(tmp_path / "m", max_shard_size=shards)
    published = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    model, tokenizer = checkpoint.load(tmp_path / "m")
    ids = np.random.default_rng(1).integers(0, 50, (2, 12))
    with torch.no_grad():
        np.testing.assert_allclose(model.logits(ids), published(torch.tensor(ids)).logits.numpy(), atol=1e-4)
    assert tokenizer is None and model.config.theta == 321.0


@pytest.mark.parametrize("shape", [{}, {"tied": False, "kv_heads": 2}])
def test_the_gradient_of_every_parameter_is_the_same_as_in_torch(tmp_path, shape):
    model, ids = random_model(**shape)
    targets = np.roll(ids, -1, 1)
    weights = np.random.default_rng(2).standard_normal(ids.shape).astype(np.float32)
    out, cache = model.forward(ids)
    loss, dout = weighted_nll(out, targets, weights, 7.0)
    grads = Parameters(model.config)
    model.backward(dout, cache, grads)
    checkpoint.save(tmp_path / "m", model)
    published = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "m")
    nll = torch.nn.functional.cross_entropy(
        published(torch.tensor(ids)).logits.transpose(1, 2), torch.tensor(targets), reduction="none"
    )
    total = (nll * torch.tensor(weights)).sum() / 7
    total.backward()
    # The gradients replace the parameters, so that saving and loading gives them our names and our order.
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.copy_(parameter.grad)
    published.save_pretrained(tmp_path / "g")
    expected = checkpoint.load(tmp_path / "g")[0].params
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    for name, gradient in grads.items():
        assert np.abs(gradient - expected[name]).max() <= 1e-5 * max(1, np.abs(expected[name]).max()), name


def test_transformers_reads_the_score_at_the_end_token_as_we_do(tmp_path):
    """transformers reads the score at the last token that is not padding. So <|end|> must not be padding."""
    tokenizer = train("hello hello", 258)
    model = Transformer(Config(vocab=len(tokenizer), context=16, layers=2, width=8, heads=2, head="score"))
    model.params.flat[:] = np.random.default_rng(0).standard_normal(model.params.flat.shape) * 0.4
    checkpoint.save(tmp_path / "m", model, tokenizer)
    begin, end, pad = (tokenizer.special[f"<|{name}|>"] for name in ("begin", "end", "mask"))
    ids = np.array([[begin, 70, 71, 72, end], [begin, 73, end, pad, pad]])
    published = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        scores = published(torch.tensor(ids)).logits.numpy()[:, 0]
    np.testing.assert_allclose(model.logits(ids)[[0, 1], [4, 2]], scores, atol=1e-4)
