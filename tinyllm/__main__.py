"""python -m tinyllm COMMAND: the command line, built from the settings dataclasses.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import dataclasses
import sys

from tinyllm import chat
from tinyllm.commands import experiments, show, train
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.preferences import rank
from tinyllm.runs import Settings
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct, s3_prefer, s4_reason

COMMANDS = {  # name -> (settings, function); the function's docstring is its help
    "train": (train.TrainSettings, train.train),
    "mine": (train.MineSettings, train.mine),
    "stage0": (s0_random.RandomSettings, train.with_exams(s0_random.main)),
    "stage1": (s1_pretrain.PretrainSettings, train.with_exams(s1_pretrain.main)),
    "stage2": (s2_instruct.InstructSettings, train.with_exams(s2_instruct.main)),
    "stage3": (s3_prefer.PreferSettings, train.with_exams(s3_prefer.main)),
    "stage4": (s4_reason.ReasonSettings, train.with_exams(s4_reason.main)),
    "control": (s4_reason.ReasonSettings, train.control),
    "rank": (rank.RankSettings, rank.main),
    "compare": (experiments.CompareSettings, experiments.compare),
    "hacking": (s3_prefer.PreferSettings, experiments.hacking),
    "show-mask": (show.ShowMaskSettings, show.show_mask),
    "sample": (show.SampleSettings, show.sample),
    "exams": (Settings, train.exams),
    "chat": (chat.ChatSettings, chat.main),
}


def parser():
    top = argparse.ArgumentParser(
        prog="python -m tinyllm",
        description="A language model from scratch, stage by stage.",
        epilog="python -m tinyllm COMMAND --help lists the options of a command",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (settings, function) in COMMANDS.items():
        about = " ".join(function.__doc__.split("\n\n")[0].split())
        command = commands.add_parser(name, help=about, description=about)
        for field in dataclasses.fields(settings):
            add_option(command, field)
    return top


def add_option(command, field):
    """Add one settings field as an option. Its default is shown unless the help text mentions it."""
    flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
    text = field.metadata["help"]
    if field.type is bool:
        command.add_argument(flag, dest=field.name, action="store_true", help=text)
        return
    text += "" if "default" in text or field.default == "" else f" (default: {field.default})"
    choices = field.metadata.get("choices")
    metavar = None if choices else field.name.upper()
    command.add_argument(
        flag,
        dest=field.name,
        type=field.type,
        default=field.default,
        choices=choices,
        metavar=metavar,
        help=text,
    )


def main(argv=None):
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # a model may write anything
    options = vars(parser().parse_args(argv))
    settings, function = COMMANDS[options.pop("command")]
    try:
        function(settings(**options))
    except TinyllmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # `| head` has seen enough
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written to
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
