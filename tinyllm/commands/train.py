"""The commands train, control and exams, and a stage with its exams."""

import dataclasses
from dataclasses import dataclass

from tinyllm.evaluation.exams import examine
from tinyllm.evaluation.scoreboard import scoreboard
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct, s3_prefer, s4_reason
from tinyllm.training import Settings, finished_stages, option


def with_exams(main):
    """A stage's main(settings), followed by its exams."""

    def stage(settings):
        examine(main(settings), settings)

    stage.__doc__ = main.__doc__
    return stage


@dataclass(frozen=True)
class TrainSettings(Settings):
    text: str = option("", "file or folder of text to pre-train on (default: the built-in world)")


def train(settings):
    """All stages in order (0 and 1 for your own --text), then the scoreboard. Finished stages are kept."""
    stages = [
        (s0_random.RandomSettings, s0_random.main),
        (s1_pretrain.PretrainSettings, s1_pretrain.main),
        (s2_instruct.InstructSettings, s2_instruct.main),
        (s3_prefer.PreferSettings, s3_prefer.main),
        (s4_reason.ReasonSettings, s4_reason.main),
    ]
    for stage_settings, main in stages[:2] if settings.text else stages:
        with_exams(main)(stage_settings(**vars(settings)))
    print(scoreboard(settings.run))


def control(settings):
    """Stage 4 on the same problems, but without chains of thought and without RL: what the chains add."""
    settings = dataclasses.replace(settings, chains="left-out")
    examine(s4_reason.main(settings, "4-control"), settings)
    print(scoreboard(settings.run))


def exams(settings):
    """Run every exam again on every finished stage of a run, and write the scoreboard."""
    for folder in finished_stages(settings.run):
        examine(folder, settings, again=True)
    print(scoreboard(settings.run))
