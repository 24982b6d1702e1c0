"""python -m tinyllm COMMAND: the command line, built from the settings dataclasses.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import os
import sys

from tinyllm import chat
from tinyllm.commands import experiments, real, report, show, train
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.preferences import rank
from tinyllm.runs import Settings
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct, s3_prefer, s4_reason

COMMANDS = {  # name -> (settings, function); the first paragraph of the function's docstring is the help
    "train": (Settings, train.train),
    "mine": (train.MineSettings, train.mine),
    "stage0": (s0_random.RandomSettings, train.with_exams(s0_random.main)),
    "stage1": (s1_pretrain.PretrainSettings, train.with_exams(s1_pretrain.main)),
    "stage2": (s2_instruct.InstructSettings, train.with_exams(s2_instruct.main)),
    "stage3": (s3_prefer.PreferSettings, train.with_exams(s3_prefer.main)),
    "stage4": (s4_reason.ReasonSettings, train.with_exams(s4_reason.main)),
    "control": (s4_reason.ReasonSettings, train.control),
    "real": (real.RealSettings, real.real),
    "quiz": (real.QuizSettings, real.quiz),
    "rank": (rank.RankSettings, rank.main),
    "algorithms": (s3_prefer.PreferSettings, experiments.algorithms),
    "hacking": (s3_prefer.PreferSettings, experiments.hacking),
    "show-mask": (Settings, show.show_mask),
    "sample": (show.SampleSettings, show.sample),
    "exams": (Settings, train.exams),
    "report": (report.ReportSettings, report.report),
    "compare": (chat.CompareSettings, chat.compare),
    "walk": (report.WalkSettings, report.walk),
    "chat": (chat.ChatSettings, chat.main),
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}. See {self.prog} --help")


def parser():
    top = Parser(
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
    """Add a settings field as an option. The help shows its default, except for flags and empty strings."""
    flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
    text = field.metadata["help"]
    if field.type is bool:
        command.add_argument(flag, dest=field.name, action="store_true", help=text)
        return
    text += "" if "default" in text or field.default == "" else f" (default: {field.default})"
    how = {"type": field.type, "choices": field.metadata.get("choices"), "help": text}
    command.add_argument(flag, dest=field.name, default=field.default, **how)


def set_up_streams():
    """Use UTF-8 on every system, through pipes too. Bytes that are not UTF-8, as in some file names, are
    escaped. A closed stream (`>&-`, `<&-`) is replaced by os.devnull."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        with contextlib.suppress(AttributeError):  # streams of tests and notebooks may lack reconfigure
            getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")


def run(argv):
    try:
        known, unknown = parser().parse_known_args(argv)
        options = vars(known)
        settings, function = COMMANDS[name := options.pop("command")]
        if unknown:
            raise UsageError(f"{name} has no {' '.join(unknown)}. See python -m tinyllm {name} --help")
        function(settings(**options))
    finally:
        try:
            sys.stdout.flush()  # now, because an error at exit could not be caught
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so the flush at exit succeeds
            raise


def fail(message, status=1):
    print(f"error: {message}", file=sys.stderr)
    return status


def main(argv=None):
    set_up_streams()
    try:
        run(argv)
    except TinyllmError as error:
        return fail(error, 2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:  # the reader of a pipe has stopped, as in `| head`
        return 1
    except OSError as error:  # such as a full disk
        return fail(f"{error.filename or 'operating system'}: {error.strerror or error}")
    except UnicodeError as error:
        return fail(f"an option, a file name or some text is not valid UTF-8: {error}")
    except RecursionError:
        return fail("JSON is nested too deeply")
    except MemoryError as error:
        return fail(f"not enough memory; choose smaller sizes: {error}")
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
