"""real: transformers gives the same logits for a published model, and the same loss and gradient in training.

Otherwise this project would run or train a different model from the published one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf_files
import numpy as np
import pytest

from tinyllm import checkpoint
from tinyllm.__main__ import main
from tinyllm.commands import real
from tinyllm.data.conversation import encode_conversation, shift
from tinyllm.errors import TinyllmError
from tinyllm.objectives import weighted_nll
from tinyllm.transformer import Config, Parameters, Transformer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

ROOT = Path(__file__).parents[3]
CHAT = [
    {"role": "user", "content": "Où est Zürich? 1234"},
    {"role": "assistant", "content": "In Switzerland, 中文."},
]


def test_the_published_model_has_the_same_logits_in_transformers(monkeypatch):
    for package in ("gguf", "accelerate"):  # transformers needs both packages to read the file
        pytest.importorskip(package)
    monkeypatch.chdir(ROOT)
    try:
        path = real.fetched()
    except TinyllmError as error:
        pytest.skip(str(error))
    model, tokenizer = checkpoint.load(path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    ids, _ = encode_conversation(tokenizer, CHAT)
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(model.logits(np.array([ids])), expected, atol=1e-3)
    reference_tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assert reference_tokenizer.encode("It's 3 pm, déjà vu.") == tokenizer.encode("It's 3 pm, déjà vu.")


def test_a_checkpoint_of_stage_2_has_the_same_loss_and_gradient_in_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(vocab=264, context=256, layers=2, width=32, heads=4, kv_heads=2, hidden=64)
    model = Transformer(config).initialise(np.random.default_rng(0))
    gguf_files.write_model(tmp_path / "toy.gguf", model, "F16")
    assert main(["real", "--model", "toy.gguf"]) == 0
    lines = [json.dumps({"prompt": f"Say {i}.", "completion": f"Aye, {i}."}) for i in range(40)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    learn = ["stage2", "--from", "runs/models/toy", "--data", "d.jsonl", "--size", "tiny", "--steps", "3"]
    assert main([*learn, "--workers", "1"]) == 0
    folder = tmp_path / "runs/demo/2-instruct"
    model, tokenizer = checkpoint.load(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
    reference_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for message in CHAT:
        assert reference_tokenizer.encode(message["content"]) == tokenizer.encode(message["content"])
    ids, mask = encode_conversation(tokenizer, CHAT)
    batch = {name: array[None] for name, array in shift(ids, mask).items()}
    labels = torch.tensor([[i if m else -100 for i, m in zip(ids, mask)]])
    out = reference(torch.tensor([ids]), labels=labels)
    out.loss.backward()
    logits, cache = model.forward(batch["ids"])
    np.testing.assert_allclose(logits, out.logits.detach().numpy()[:, :-1], atol=1e-4)
    loss, dlogits = weighted_nll(logits, batch["targets"], batch["weights"], sum(mask))
    gradient = Parameters(config)
    model.backward(dlogits, cache, gradient)
    assert loss == pytest.approx(out.loss.item(), rel=1e-3)
    norm = torch.nn.utils.get_total_norm([p.grad for p in reference.parameters()]).item()
    assert np.linalg.norm(gradient.flat) == pytest.approx(norm, rel=1e-3)


LOGITS = """
import resource, numpy as np
from tinyllm import checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
np.save("logits.npy", checkpoint.load("big")[0].logits(np.load("ids.npy")))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss may have another unit")
def test_a_model_of_300_million_parameters_needs_at_most_a_fifth_more_memory_than_its_weights(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = Config(vocab=49152, context=64, layers=26, width=960, heads=15, kv_heads=5, hidden=2560)
    model, rng = Transformer(config), np.random.default_rng(0)
    for name, w in model.params.items():
        w[:] = 1 if name.endswith("norm") else 0.03 * rng.standard_normal(w.shape, np.float32)
    checkpoint.save("big", model)
    del model
    np.save("ids.npy", rng.integers(0, config.vocab, (1, 12)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOGITS]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert config.size() > 300e6 and int(result.stdout) < 1.2 * 4 * config.size()
    reference = transformers.AutoModelForCausalLM.from_pretrained("big")
    with torch.no_grad():
        expected = reference(torch.tensor(np.load("ids.npy"))).logits.numpy()
    np.testing.assert_allclose(np.load("logits.npy"), expected, atol=1e-4 * max(1, np.abs(expected).max()))
