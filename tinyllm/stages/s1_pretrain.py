"""Stage 1: read. Every token of a text is predicted from those before it, and that is all.

Before the texts of the built-in world, and as one token in eight among them, come random tokens that repeat
themselves (induction.py): so the model learns to go on as it went before, and does not forget it over texts
that it can learn by heart. Stages 2 and 4 will have much to look up.

OBJECTIVE=masked trains the other classic instead: tokens are hidden, and predicted from both sides
(Devlin et al. 2018). Such a model cannot write from left to right, so it goes to 1-masked/ and no
later stage builds on it.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint, corpus, exams
from tinyllm.conversation import shift
from tinyllm.induction import repeats
from tinyllm.objectives import hide_tokens, weighted_nll
from tinyllm.sampling import generate
from tinyllm.training import Rates, Run, RunError, Settings, is_finished, option, parent_of
from tinyllm.transformer import Transformer

BUDGETS = {"nano": {"rows": 16, "steps": 300}, "small": {"rows": 16, "steps": 1000},
           "base": {"rows": 64, "steps": 4000}}  # fmt: skip
PRACTICE = 60                # batches of repetitions before the texts


@dataclass(frozen=True)
class Pretrain(Settings):
    text: str = option("", "file or folder of text to train on (default: the built-in world)")
    origin: str = option("", "checkpoint folder to start from (default: 0-random of this run)", flag="from")
    objective: str = option("next", "predict the next token, or hidden ones", choices=("next", "masked"))
    rows: int = option(0, "sequences in a batch (default: as the size says)")
    steps: int = option(0, "batches to train on (default: as the size says)")
    practice: int = option(-1, "of these, batches of repetitions (default: 60; none for a --text)")
    accumulate: int = option(1, "pieces that each worker cuts its share of a batch into, to save memory")
    method: str = option("muon", "optimizer of the block matrices", choices=("muon", "adamw"))
    muon_rate: float = option(0.02, "peak learning rate of Muon")
    adamw_rate: float = option(8e-3, "peak learning rate of AdamW")
    decay: float = option(0.1, "weight decay of AdamW's matrices")
    warmup: int = option(100, "steps until the learning rate has risen to its peak")
    save_every: int = option(200, "steps between checkpoints")
    evaluate_every: int = option(0, "steps between validation losses and samples (default: a quarter of all)")


def main(cfg):
    masked = cfg.objective == "masked"
    stage = "1-masked" if masked else "1-pretrain"
    parent = parent_of(cfg, "0-random", "stage0")
    if is_finished(cfg, stage, parent):
        return
    model, tokenizer = checkpoint.load(parent)
    if tokenizer is None or model.config.head != "tokens":
        raise RunError(f"{parent} cannot be trained on text: it has no tokenizer, or its head gives scores")
    config = dataclasses.replace(model.config, causal=not masked)
    training, validation = corpus.load(cfg)
    ids = corpus.pack(training, tokenizer)
    hide = lambda batch, key: hide_tokens(batch[0], tokenizer.ordinary, tokenizer.special["<|mask|>"],
                                          np.random.default_rng([cfg.seed, *key])) if masked else batch
    budget = BUDGETS[cfg.size]
    rows, steps = cfg.rows or budget["rows"], cfg.steps or budget["steps"]
    window = corpus.window(cfg, config.context)
    far = min(2 * window, config.context)                          # tokens in a row of repetitions
    practice = cfg.practice if cfg.practice >= 0 else 0 if cfg.text or masked else min(PRACTICE, steps // 4)
    every = cfg.evaluate_every or max(1, steps // 4)
    rates = Rates(cfg.method, cfg.muon_rate, cfg.adamw_rate, cfg.decay, cfg.warmup)

    def batch(step):
        again = rows if step < practice else rows // 8 if practice else 0
        many = max(1, again * window // far)
        said = [shift(*repeats(config.vocab, many, far + 1, [cfg.seed, 3, step]))] if again else []
        if again == rows:
            return said
        return [hide(corpus.windows(ids, window, rows - again, step, cfg.seed), (1, step)), *said]

    held_out = [hide(piece, (2, i)) for i, piece in enumerate(
        corpus.every_window(validation, tokenizer, window, 32))]

    with Run(cfg, stage, Transformer(config, model.params), tokenizer, steps, parent, cfg.save_every) as run:
        run.announce(weighted_nll, batch(0), rates, cfg.accumulate)
        for step in run.steps():
            run.train(step, weighted_nll, batch(step), rates, accumulate=cfg.accumulate)
            if (step + 1) % every == 0 or step + 1 == steps:
                run.validate(step, weighted_nll, held_out)
                run.sample(step, say(run, held_out[-1], masked))
        run.finish()
        exams.run(run.team, tokenizer, cfg, run.folder)


def say(run, batch, masked, length=80):
    """What the model makes of a validation text: a continuation, or its guesses in [brackets]."""
    (ids, targets, weights), model, tokenizer = (a[0] for a in batch), run.model, run.tokenizer
    if masked:
        guesses = model.logits(ids)[:, :tokenizer.ordinary].argmax(axis=1)
        return "".join(f"[{tokenizer.decode([g])}]" if w else tokenizer.decode([t])
                       for g, t, w in zip(guesses, targets, weights))
    start = ids[:16]
    (new, _), = generate(model, [start], length, np.random.default_rng(0), temperature=0.8,
                         stop=[tokenizer.special["<|end|>"]])
    return tokenizer.decode(start) + " | " + tokenizer.decode(new)
