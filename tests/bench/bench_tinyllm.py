"""Our speed compared with that of other libraries: `make bench`. Not a test: figures vary by machine.

    training step   against a torch eager model of the same shape, as a good PyTorch user would write it:
                    scaled_dot_product_attention, the RMSNorm module, fused AdamW (ours uses AdamW too)
    decoding        against torch with a preallocated key/value cache
    tokenizer       against Hugging Face tokenizers (Rust)
    token masks     in microseconds: bench_masks.py

Our code and the other library run in the same process. They take turns, and the median time counts. A
training step is given as our time / torch's time (lower is better), decoding as our tokens per second /
torch's (higher is better). The figures are also written to runs/bench.json, as null where the other library
is missing.
"""

import os

os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import itertools
import json
import platform
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import bench_masks
import numpy as np

import tinyllm  # noqa: F401  (bench_masks imports tinyllm before NumPy, so BLAS uses one thread)
from tinyllm import optimizer
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.parallel import WorkerPool
from tinyllm.sampling import generate
from tinyllm.tokenizer import PATTERN, Tokenizer, train
from tinyllm.training import compute_gradient, compute_update, share_out
from tinyllm.transformer import Config, Transformer

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    torch = None
try:
    import tokenizers
except ImportError:
    tokenizers = None

# 0.8 M parameters and 768 tokens per step; 2.8 M parameters and 2,048 tokens per step
SMALL, SMALL_ROWS = Config(vocab=65, context=64, layers=4, width=128, heads=4), 12
LARGE, LARGE_ROWS = Config(vocab=512, context=128, layers=6, width=192, heads=6), 16
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def interleaved(rounds, *functions):
    """The functions take turns, once in each round -> the median seconds of each function.

    There is a pause before each call: torch's OpenMP threads spin for a while after their work, and would
    take a core from the next function.
    """
    times = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(rounds):
        for i, function in enumerate(functions):
            time.sleep(0.05)
            began = time.perf_counter()
            function()
            times[i].append(time.perf_counter() - began)
    return [statistics.median(t) for t in times]


# ---- the same model in torch -------------------------------------------------------------

if torch:

    class Block(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.c = c
            self.norm1, self.norm2 = nn.RMSNorm(c.width, eps=c.eps), nn.RMSNorm(c.width, eps=c.eps)
            self.qkv = nn.Linear(c.width, 3 * c.width, bias=False)
            self.out = nn.Linear(c.width, c.width, bias=False)
            self.gate_up = nn.Linear(c.width, 2 * c.hidden, bias=False)
            self.down = nn.Linear(c.hidden, c.width, bias=False)

        def forward(self, x, cos, sin, cache=None, at=0):
            B, T, C = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.c.heads, -1).permute(2, 0, 3, 1, 4)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if cache is not None:
                cache[0][:, :, at : at + T], cache[1][:, :, at : at + T] = k, v
                k, v = cache[0][:, :, : at + T], cache[1][:, :, : at + T]
            y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
            x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
            gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
            return x + self.down(F.silu(gate) * up)

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    class TorchModel(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.c, self.embedding = c, nn.Embedding(c.vocab, c.width)
            self.blocks, self.norm = (
                nn.ModuleList(Block(c) for _ in range(c.layers)),
                nn.RMSNorm(c.width, eps=c.eps),
            )
            nn.init.normal_(self.embedding.weight, std=0.02)
            angle = torch.arange(c.context)[:, None] * c.theta ** (
                -torch.arange(0, c.head_dim, 2) / c.head_dim
            )
            self.cos, self.sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()

        def forward(self, ids, caches=None, at=0):
            x, T = self.embedding(ids), ids.shape[1]
            for i, block in enumerate(self.blocks):
                x = block(x, self.cos[at : at + T], self.sin[at : at + T], caches and caches[i], at)
            return self.norm(x) @ self.embedding.weight.T


def torch_step(config, ids):
    model, ids = TorchModel(config), torch.tensor(ids)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )

    def step():
        loss = F.cross_entropy(model(ids).view(-1, config.vocab), ids.view(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def our_step(pool, ids):
    rates = Rates(method="adamw")
    batch = [{"ids": ids, "targets": ids, "weights": np.ones(ids.shape, np.float32)}]
    updates = itertools.count()

    def step():
        shares = share_out(batch, pool.workers, accumulate=1)
        pool.run(compute_gradient, [(weighted_nll, float(ids.size), pieces) for pieces in shares])
        optimizer.clip(pool.sum_gradients(len(shares)))
        pool.run(compute_update, [(next(updates), rates, 0.1)] * pool.workers)

    return step


def training(config, rows, rounds):
    """-> (our time / torch's on one thread, the same on all cores, matmuls' share of our time).

    The last figure is the time that the matmuls of our step would take at peak speed, divided by our time.
    """
    ids = np.random.default_rng(1).integers(0, config.vocab, (rows, config.context))
    model = Transformer(config).initialise(np.random.default_rng(0))
    one_worker, all_workers = WorkerPool(model, 1), WorkerPool(model, CORES)
    step_on_one, step_on_all = our_step(one_worker, ids), our_step(all_workers, ids)
    if torch is None:
        seconds, _ = interleaved(rounds, step_on_one, step_on_all)
        ratio = ratio_all = None
    else:
        step_in_torch = torch_step(config, ids)
        torch.set_num_threads(1)
        seconds, torch_seconds = interleaved(rounds, step_on_one, step_in_torch)
        torch.set_num_threads(CORES)
        seconds_all, torch_seconds_all = interleaved(rounds, step_on_all, step_in_torch)
        torch.set_num_threads(1)
        ratio, ratio_all = seconds / torch_seconds, seconds_all / min(torch_seconds, torch_seconds_all)
    all_workers.close()
    one_worker.close()
    return ratio, ratio_all, 6 * config.size() * ids.size / peak_flops() / seconds


def peak_flops():
    """Floating-point operations per second of one large matrix product on one thread."""
    a = np.ones((768, 768), np.float32)
    (seconds,) = interleaved(20, lambda: a @ a)
    return 2 * 768**3 / seconds


def decoding(rows, rounds, tokens=63):
    """Our tokens per second / torch's. Each side samples 63 tokens after one prompt token, with a cache."""
    model = Transformer(SMALL).initialise(np.random.default_rng(0))
    draws = np.random.default_rng(0).random((rows, tokens))
    decode = lambda: generate(model, [[1]] * rows, tokens, draws)
    if torch is None:
        return None
    model_in_torch = TorchModel(SMALL)

    @torch.inference_mode()
    def decode_in_torch():
        shape = (rows, SMALL.heads, SMALL.context, SMALL.head_dim)
        caches = [(torch.empty(shape), torch.empty(shape)) for _ in range(SMALL.layers)]
        ids = torch.ones((rows, 1), dtype=torch.long)
        for at in range(tokens):
            p = torch.softmax(model_in_torch(ids, caches, at)[:, -1], -1)
            ids = torch.multinomial(p, 1)

    seconds, torch_seconds = interleaved(rounds, decode, decode_in_torch)
    return torch_seconds / seconds


def made_up_text(size=1_000_000):
    """Text with the word statistics of a language: made-up words whose frequencies follow Zipf's law."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", range(26, 0, -1), k=rng.randint(1, 9)))
        for _ in range(20000)
    ]
    text = " ".join(rng.choices(words, [1 / (i + 1) for i in range(len(words))], k=size // 4))
    return text[:size]


def tokenizing(text, rounds):
    """-> (our training time / the Rust trainer's, megabytes that we encode per second without warm-up)"""
    cold = []

    def encode():
        fresh = Tokenizer(merges)
        began = time.perf_counter()
        fresh.encode(text)
        cold.append(time.perf_counter() - began)

    merges = train(text, 1024).merges
    if tokenizers is None:
        interleaved(rounds, encode)
        return None, len(text) / 1e6 / statistics.median(cold)

    def train_in_rust():
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
        level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        rust = tokenizers.Tokenizer(tokenizers.models.BPE())
        rust.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
        rust.train_from_iterator(
            [text],
            tokenizers.trainers.BpeTrainer(
                vocab_size=1024, initial_alphabet=level.alphabet(), show_progress=False
            ),
        )

    seconds, rust_seconds, _ = interleaved(rounds, lambda: train(text, 1024), train_in_rust, encode)
    return seconds / rust_seconds, len(text) / 1e6 / statistics.median(cold)


def processor():
    try:
        return next(
            line.split(":")[1].strip()
            for line in open("/proc/cpuinfo", encoding="utf-8")
            if "model name" in line
        )
    except (OSError, StopIteration):
        return platform.processor()


def main():
    if torch:
        torch.manual_seed(0)
        torch.set_num_threads(1)
    text = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else made_up_text()
    small, small_all, small_floor = training(SMALL, SMALL_ROWS, 40)
    large, large_all, large_floor = training(LARGE, LARGE_ROWS, 12)
    bpe, encode = tokenizing(text, 5)
    masks, _ = bench_masks.measure(512)
    masks_large, masks_again = bench_masks.measure(32_000)
    figures = {
        "train_step_ratio_small": small,
        "train_step_ratio_large": large,
        "train_step_ratio_all_cores_small": small_all,
        "train_step_ratio_all_cores_large": large_all,
        "matmul_floor_small": small_floor,
        "matmul_floor_large": large_floor,
        "decode_ratio_batch1": decoding(1, 10),
        "decode_ratio_batch64": decoding(64, 8),
        "bpe_train_ratio": bpe,
        "bpe_encode_mb_per_s": encode,
        "mask_us_512": masks[len(masks) // 2] * 1e6,
        "mask_us_32000_of_100": masks_large[len(masks_large) * 99 // 100] * 1e6,
        "mask_us_32000_again_worst": masks_again[-1] * 1e6,
    }
    about = {
        "cpu": processor(),
        "cores": CORES,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch and torch.__version__,
        "tokenizers": tokenizers and tokenizers.__version__,
    }
    meaning = {
        "train_step_ratio_small": "step of 0.8 M parameters, 768 tokens, one thread: our time / torch's",
        "train_step_ratio_large": "step of 2.8 M parameters, 2,048 tokens, one thread: our time / torch's",
        "train_step_ratio_all_cores_small": f"the small step on {CORES} cores: our time / torch's best time",
        "train_step_ratio_all_cores_large": "the same for the large step",
        "matmul_floor_small": "share of our small step that its matmuls would take at peak speed",
        "matmul_floor_large": "the same for the large step",
        "decode_ratio_batch1": "decoding, batch 1: our tokens per second / torch's",
        "decode_ratio_batch64": "decoding, batch 64",
        "bpe_train_ratio": "BPE training on 1 MB: our time / the Rust trainer's",
        "bpe_encode_mb_per_s": "BPE encoding without warm-up, MB/s",
        "mask_us_512": "token mask, 512 tokens: median, microseconds",
        "mask_us_32000_of_100": "token mask, 32,000 tokens: 99th percentile, microseconds",
        "mask_us_32000_again_worst": "the same calls again, 32,000 tokens: slowest mask, microseconds",
    }
    for key, value in figures.items():
        print(f"{'-' if value is None else format(value, '.2f'):>8}  {meaning[key]}")
    Path("runs").mkdir(exist_ok=True)
    Path("runs/bench.json").write_text(json.dumps(figures | about, indent=2) + "\n", encoding="utf-8")
    print(f"on {about['cpu']}, written to runs/bench.json")


if __name__ == "__main__":
    main()
