"""Stage 1: pre-training. Predict every token of a text from the tokens before it.

OBJECTIVE=masked uses the other classic objective: some tokens are hidden, and the model predicts them from
the tokens on both sides (Devlin et al. 2018). Such a model cannot write from left to right, so it is saved in
1-masked/ and no later stage builds on it.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from tinyllm import checkpoint
from tinyllm.data import corpus
from tinyllm.data.batches import ConversationBatches, mask_tokens
from tinyllm.errors import TinyllmError
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.runs import TrainingSettings, nothing_to_do, option, parent_folder, sources
from tinyllm.sampling import generate
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run
from tinyllm.transformer import Transformer

EPOCHS, FEWEST_STEPS = 10, 300  # for your own text; --size limits the steps
ROW = 144  # a batch from the built-in world has --rows times this many tokens


@dataclass(frozen=True)
class PretrainSettings(TrainingSettings):
    # replaces: with --from, this text may differ from the one that the parent learned from
    text: str = option("", "file or folder of text (default: the parent's)", source="text", replaces=True)
    objective: str = option("next", "predict the next token, or masked tokens", choices=("next", "masked"))
    rows: int = option(
        0, "windows per batch; built-in world: units of 144 tokens (default: set by --size)", (1, 4096)
    )
    steps: int = option(0, "batches to train on (default: set by --size)")
    method: str = option("muon", "optimizer of the matrices in the blocks", choices=("muon", "adamw"))
    muon_rate: float = option(0.02, "peak learning rate of Muon")
    adamw_rate: float = option(8e-3, "peak learning rate of AdamW")


def main(settings):
    """Stage 1: pre-train to predict the next token, or hidden tokens."""
    masked = settings.objective == "masked"
    stage, size = "1-masked" if masked else "1-pretrain", SIZES[settings.size]
    folder, parent = settings.folder(stage), parent_folder(settings, "0-random")
    if nothing_to_do(settings, stage, parent):
        return folder
    model, tokenizer = checkpoint.load(parent)
    if tokenizer is None or model.config.head != "tokens":
        raise TinyllmError(f"{parent} cannot be trained on text: it lacks a tokenizer, or has a score head")
    config = dataclasses.replace(model.config, causal=not masked)
    source = sources(settings, parent)["text"]
    path, kept = source["path"], settings.folder("text.safetensors")
    ids = corpus.packed(kept, source, settings.seed, size.characters, tokenizer)
    _, validation = corpus.load(path, settings.seed, size.characters)
    length, rows = config.context, settings.rows or size.rows
    epochs = EPOCHS * len(ids) // (rows * length) if path else size.pretrain_steps
    steps = settings.steps or min(size.pretrain_steps, max(FEWEST_STEPS, epochs))
    rates = Rates(settings.method, settings.muon_rate, settings.adamw_rate, steps=steps)

    if path or masked:  # windows need no padding, which a masked model would see

        def batch(step):
            return [corpus.windows(ids, length if path else min(length, ROW), rows, step, settings.seed)]
    else:  # one document per row: with several, the model takes longer to learn how to follow a story
        documents = corpus.document_rows(ids, length)
        batch = ConversationBatches(documents, ids, rows * ROW, 0.0, settings.seed, steps).batch

    def hide(pieces, *key):
        if not masked:
            return pieces
        rng, mask_id = np.random.default_rng([settings.seed, *key]), tokenizer.special["<|mask|>"]
        return [mask_tokens(piece, tokenizer.ordinary, mask_id, rng) for piece in pieces]

    batch(0)  # raises TinyllmError for a text that is too short
    held_out = hide(corpus.every_window(validation, tokenizer, length, 32), 2)

    with Run(settings, stage, Transformer(config, model.params), tokenizer, steps, parent) as run:
        for step in run.steps():
            pieces = hide(batch(step), 1, step)
            run.train_step(step, weighted_nll, pieces, rates)
            if run.is_due(step):
                run.validate(step, weighted_nll, held_out)
                run.sample(step, show(run, held_out[-1], masked))
    return folder


def show(run, batch, masked, length=80):
    """The beginning of a validation text and the model's continuation. For a masked model: the text, with the
    model's guesses in [brackets]."""
    model, tokenizer = run.model, run.tokenizer
    ids, targets, weights = (batch[name][0] for name in ("ids", "targets", "weights"))
    if masked:
        guesses = model.logits(ids)[:, : tokenizer.ordinary].argmax(axis=1)
        return "".join(
            f"[{tokenizer.decode([guess])}]" if weight else tokenizer.decode([target])
            for guess, target, weight in zip(guesses, targets, weights)
        )
    draws = np.random.default_rng(0).random((1, length))
    end = tokenizer.special["<|end|>"]
    (tokens,) = generate(model, [ids[:16]], length, draws, temperature=0.8, stop=end)
    return tokenizer.decode(ids[:16]) + " | " + tokenizer.decode(tokens)
