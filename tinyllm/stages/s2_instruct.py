"""Stage 2: answer. Conversations; learned is what the assistant says, and that it then stops.

The question is read but not learned: the model is to answer it, not to ask it. Two fifths of every batch are
pre-training text, or the facts that were read in stage 1 would be forgotten before they are asked for.
"""

from dataclasses import dataclass

from tinyllm import checkpoint, corpus, exams, formats, interviews
from tinyllm.lessons import Lessons, spell_all
from tinyllm.objectives import weighted_nll
from tinyllm.training import Rates, Run, RunError, Settings, is_finished, option, parent_of
from tinyllm.world import World

BUDGETS = {"nano": {"tasks": 4000, "steps": 100}, "small": {"tasks": 40_000, "steps": 1000},
           "base": {"tasks": 60_000, "steps": 2000}}  # fmt: skip


@dataclass(frozen=True)
class Instruct(Settings):
    data: str = option("", "instruction JSON or JSONL (default: the built-in world)")
    text: str = option("", "file or folder of text to replay (default: the built-in world)")
    origin: str = option("", "checkpoint folder to start from (default: 1-pretrain of this run)", flag="from")
    steps: int = option(0, "batches to train on (default: as the size says)")
    tokens: int = option(4096, "tokens in a batch, replayed text included")
    replay: float = option(0.4, "share of pre-training text in every batch")
    muon_rate: float = option(0.015, "peak learning rate of Muon")
    adamw_rate: float = option(5e-3, "peak learning rate of AdamW")
    save_every: int = option(200, "steps between checkpoints")


def main(cfg):
    parent = parent_of(cfg, "1-pretrain", "stage1")
    if is_finished(cfg, "2-instruct", parent):
        return
    model, tokenizer = checkpoint.load(parent)
    if tokenizer is None or not model.config.causal:
        raise RunError(f"{parent} cannot be instructed: it has no tokenizer, or is a masked model")
    budget, world = BUDGETS[cfg.size], World(cfg.seed)
    training, _ = corpus.load(cfg)
    if cfg.data:
        conversations, held_out = formats.split(formats.instructions(cfg.data))
    else:
        conversations = [task.messages for task in world.instructions("train", budget["tasks"])]
        held_out = [task.messages for task in world.instructions("val", 300)]
    rows = spell_all(tokenizer, conversations, model.config.context)
    if not rows:
        raise RunError(f"no conversation fits into the context of {model.config.context} tokens")
    text = corpus.pack(training, tokenizer)
    lessons = Lessons(rows, text, cfg.tokens, cfg.replay, cfg.seed, model.config.vocab)
    steps = cfg.steps or budget["steps"]
    batches, rates = lessons.batches(steps), Rates("muon", cfg.muon_rate, cfg.adamw_rate)
    unseen = Lessons(spell_all(tokenizer, held_out, model.config.context), text, cfg.tokens, 0, 0)
    unseen = unseen.batch(unseen.batches(1)[0], 0) if unseen.rows else []

    with Run(cfg, "2-instruct", model, tokenizer, steps, parent, cfg.save_every) as run:
        run.announce(weighted_nll, lessons.batch(batches[0], 0), rates)
        for step in run.steps():
            run.train(step, weighted_nll, lessons.batch(batches[step], step), rates)
            if unseen and ((step + 1) % max(1, steps // 4) == 0 or step + 1 == steps):
                run.validate(step, weighted_nll, unseen)
                run.sample(step, interviews.say(run, held_out[step % len(held_out)]))
        run.finish()
        exams.run(run.team, tokenizer, cfg, run.folder)
