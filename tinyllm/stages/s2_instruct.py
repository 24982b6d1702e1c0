"""Stage 2: instruction fine-tuning. Learn from conversations how to answer, and when to stop.

The model sees the question, but the loss covers only the answer: the model should answer questions, not ask
them. By default, 30 % of every batch is pre-training text. Without it, the model would forget the
facts that it learned in stage 1.
"""

from dataclasses import dataclass

from tinyllm import checkpoint
from tinyllm.data import corpus
from tinyllm.data.batches import ConversationBatches, chained, encode_fitting, report_left_out, with_replay
from tinyllm.data.conversation import prompt_of
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.runs import TrainingSettings, nothing_to_do, option, parent_folder, path_of, sources
from tinyllm.sampling import show_reply
from tinyllm.stages.sizes import SIZES
from tinyllm.training import Run

STAGE = "2-instruct"
EPOCHS, FEWEST_STEPS = 40, 400  # for your own conversations; --size limits the steps
# Peak learning rates of Muon and AdamW. At low rates, the model memorises a few hundred training questions;
# only at high rates does it learn to answer new questions from the text it has read. Measured with
# tests/own_files.py, whose texts are about ships: of 13 held-out questions about captains, 12 were answered
# wrongly at half of OWN_RATES (after 100 steps and after 400), and none at OWN_RATES.
RATES, OWN_RATES = (0.015, 5e-3), (0.03, 0.01)


@dataclass(frozen=True)
class InstructSettings(TrainingSettings):
    data: str = option("", "instructions, JSON or JSONL (default: the built-in world)", source="instructions")
    text: str = option("", "pre-training text, if the parent has none on record", source="text")
    steps: int = option(0, "batches to train on (default: set by --size)")
    tokens: int = option(4096, "tokens in a batch, including replayed text", (1, 10**6))
    replay: float = option(0.3, "share of pre-training text in every batch", (0, 0.9))
    muon_rate: float = option(
        0.0, f"peak learning rate of Muon (default: {RATES[0]}; own data: {OWN_RATES[0]})"
    )
    adamw_rate: float = option(
        0.0, f"peak learning rate of AdamW (default: {RATES[1]}; own data: {OWN_RATES[1]})"
    )


def main(settings):
    """Stage 2: fine-tune on instructions and their answers."""
    folder, size = settings.folder(STAGE), SIZES[settings.size]
    parent = parent_folder(settings, "1-pretrain")
    if nothing_to_do(settings, STAGE, parent):
        return folder
    model, tokenizer = checkpoint.load_language_model(parent)
    context, learned = model.config.context, sources(settings, parent)
    path = path_of(learned, "instructions")
    conversations, held_out = corpus.load_conversations(path, settings.seed, size.instructions)
    rows = encode_fitting(tokenizer, conversations, context)
    report_left_out(rows, conversations, "conversation", context)
    steps, (muon, adamw) = size.instruct_steps, RATES
    if path:
        rows += encode_fitting(tokenizer, chained(conversations, settings.seed), context)
        tokens = sum(len(ids) for ids, _ in rows)
        enough = round(EPOCHS * tokens / (settings.tokens * (1 - settings.replay)))
        steps, (muon, adamw) = min(steps, max(FEWEST_STEPS, enough)), OWN_RATES
    steps = settings.steps or steps
    batches = with_replay(rows, settings, learned, size.characters, tokenizer, steps)
    rates = Rates("muon", settings.muon_rate or muon, settings.adamw_rate or adamw, steps=steps)
    unseen = encode_fitting(tokenizer, held_out, context)
    validation = []
    if unseen:
        validation = ConversationBatches(unseen, batches.text, settings.tokens, 0.0, 0, steps=1).batch(0)

    with Run(settings, STAGE, model, tokenizer, steps, parent) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, batches.batch(step), rates)
            if validation and run.is_due(step):
                run.validate(step, weighted_nll, validation)
                run.sample(step, show_reply(run.pool, tokenizer, prompt_of(held_out[step % len(held_out)])))
    return folder
