"""Stage 0: a vocabulary learned from the text, and a model that has learned nothing. Its weights are random
but for one reflex that it is born with (induction.py).

Its loss is about ln V, the loss of guessing evenly among V tokens; every later figure is to be read
beside that one.
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyllm import corpus, exams, induction, tokenizer
from tinyllm.training import Run, Settings, UsageError, is_finished, option
from tinyllm.transformer import Config, Transformer

SHAPES = {"nano": {"layers": 2, "width": 64, "heads": 2, "context": 352},
          "small": {"layers": 4, "width": 128, "heads": 4, "context": 352},
          "base": {"layers": 8, "width": 256, "heads": 8, "context": 512}}


@dataclass(frozen=True)
class Random(Settings):
    text: str = option("", "file or folder of text for the vocabulary (default: the built-in world)")
    vocab: int = option(1536, "bytes and merges in the vocabulary; 256 is plain bytes")
    layers: int = option(0, "number of layers (default: as the size says)")
    width: int = option(0, "channels of the residual stream (default: as the size says)")
    heads: int = option(0, "query heads (default: as the size says)")
    kv_heads: int = option(0, "key/value heads (default: as many as heads)")
    hidden: int = option(0, "hidden channels of the MLP (default: 8/3 of the width)")
    context: int = option(0, "longest sequence in tokens (default: as the size says)")
    theta: float = option(10_000.0, "base of the rotary angles")
    untied: bool = option(False, "give the head its own matrix instead of the embedding table")


def main(cfg):
    if is_finished(cfg, "0-random"):
        return
    training, _ = corpus.load(cfg)
    shape = {name: getattr(cfg, name) or size for name, size in SHAPES[cfg.size].items()}
    try:
        words = tokenizer.train(training[:10_000] + corpus.spoken(cfg), cfg.vocab)
        config = Config(len(words), **shape, kv_heads=cfg.kv_heads, hidden=cfg.hidden, theta=cfg.theta,
                        tied=not cfg.untied)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rng = np.random.default_rng(cfg.seed)
    model = induction.wire(Transformer(config).initialise(rng), rng)
    with Run(cfg, "0-random", model, words, steps=0) as run:
        print(f"0-random: {config.size():,} parameters, {len(words)} tokens in the vocabulary, "
              f"ln V = {math.log(len(words)):.3f}")
        run.finish()
        exams.run(run.team, words, cfg, run.folder)
