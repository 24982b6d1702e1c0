"""The commands `train`, `mine`, `control` and `exams`. with_exams runs the exams after a stage."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, write_text
from tinyllm.data import formats
from tinyllm.data.batches import encode_fitting, report_left_out
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.evaluation.exams import examine
from tinyllm.evaluation.scoreboard import scoreboard
from tinyllm.preferences import rankings
from tinyllm.report import page
from tinyllm.runs import Settings, finished_stages, option, stage_folder
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct, s3_prefer, s4_reason


def with_exams(main):
    """A stage's main(settings) -> a function that runs it and then the exams of the stage."""

    def stage(settings):
        examine(main(settings), settings)
        scoreboard(settings.run)
        if getattr(settings, "origin", ""):
            print(settings.folder("scoreboard.md").read_text(encoding="utf-8"))

    stage.__doc__ = main.__doc__
    return stage


@dataclass(frozen=True)
class MineSettings(Settings):
    text: str = option("", "file or folder of text to pre-train on (default: the training part of --data)")
    data: str = option("", "questions and answers (JSON or JSONL) for stage 2; one in ten is held out")
    rankings: str = option("", "rankings, or chosen and rejected replies (JSONL), for stage 3")


def run_stage(settings, stage_settings, main):
    """Run one stage and its exams, with the settings that the command and the stage share."""
    with_exams(main)(settings.as_settings(stage_settings))


def train(settings):
    """Train all stages in order on the built-in world; print the scoreboard and write the report page.

    Finished stages are not trained again.
    """
    run_stage(settings, s0_random.RandomSettings, s0_random.main)
    run_stage(settings, s1_pretrain.PretrainSettings, s1_pretrain.main)
    run_stage(settings, s2_instruct.InstructSettings, s2_instruct.main)
    run_stage(settings, s3_prefer.PreferSettings, s3_prefer.main)
    run_stage(settings, s4_reason.ReasonSettings, s4_reason.main)
    show(settings.run)


def mine(settings):
    """Train your own assistant, as far as your files allow, and show its answers to held-out questions."""
    if not settings.text and not settings.data:
        raise UsageError("name your files: TEXT=folder-or-file, DATA=questions.jsonl, or both")
    if settings.rankings and not settings.data:
        raise UsageError("RANKINGS= needs DATA= too: stage 3 needs a model that answers questions")
    text = Path(settings.text).resolve()
    for path in filter(None, (settings.data, settings.rankings)):
        if settings.text and Path(path).resolve().is_relative_to(text):
            raise UsageError(f"{path} lies inside {settings.text}, so held-out answers would be trained on")
    # The files of --data and --rankings are checked before anything is trained.
    conversations, _ = formats.split(formats.instructions(settings.data)) if settings.data else ([], [])
    ranked, _ = rankings.split_rankings(rankings.read(settings.rankings)) if settings.rankings else ([], [])
    if not settings.text:
        settings = dataclasses.replace(settings, text=str(own_text(settings, conversations)))
    run_stage(settings, s0_random.RandomSettings, s0_random.main)
    check_context(settings.folder("0-random"), conversations, ranked)
    run_stage(settings, s1_pretrain.PretrainSettings, s1_pretrain.main)
    if settings.data:
        run_stage(settings, s2_instruct.InstructSettings, s2_instruct.main)
    if settings.rankings:
        run_stage(settings, s3_prefer.PreferSettings, s3_prefer.main)
    show(settings.run)
    answers = read_json(finished_stages(settings.run)[-1] / "exams.json").get("own_questions_shown", [])
    for shown in answers:
        print("\n{prompt}\n  expected: {expected}\n  answered: {reply}".format(**shown))
    if settings.data and not answers:
        print("\nno question is held out, or no held-out question fits into the context: add more questions")
    print(f"\nTry it: make {'chat' if settings.data else 'sample'} RUN={shlex.quote(settings.run)}")


def check_context(folder, conversations, ranked):
    """Raises TinyllmError if all conversations, or all rankings, are too long for the model in `folder`."""
    model, tokenizer = checkpoint.load(folder)
    context = model.config.context
    fitting = encode_fitting(tokenizer, conversations, context)
    report_left_out(fitting, conversations, "conversation", context)
    rankings.fitting(ranked, tokenizer, context)


def show(run):
    """The last step of `train` and `mine`: print the scoreboard of the run and write its report page."""
    print(scoreboard(run))
    print(f"the report page: {page.write(run)}")


def own_text(settings, conversations):
    """Write the training conversations to a text file -> its path. Without TEXT=, the vocabulary and
    pre-training use this file."""
    path = settings.folder("text.txt")
    learned = [[m["content"] for m in messages if m.get("weight") != 0] for messages in conversations]
    text = "\n\n".join(map("\n".join, learned))
    if path.exists() and path.read_bytes() != text.encode():
        raise TinyllmError(f"{path} was made from questions other than those in DATA=: choose another RUN=")
    write_text(path, text)
    return path


def control(settings):
    """Train stage 4 on the same problems, but without chains of thought or RL, to see what these add."""
    settings = dataclasses.replace(settings, direct=True)
    examine(s4_reason.main(settings, "4-control"), settings)
    print(scoreboard(settings.run))


def exams(settings):
    """Run every exam again on every finished stage of a run, and write the scoreboard."""
    stage_folder(settings.run, "")  # raises TinyllmError if no stage is finished
    for folder in finished_stages(settings.run):
        examine(folder, settings, again=True)
    print(scoreboard(settings.run))
