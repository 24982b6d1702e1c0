"""python -m tinyllm COMMAND: the command line, made from the settings dataclasses.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import dataclasses
import sys

from tinyllm import chat, commands, exhibits, rank
from tinyllm.checkpoint import CheckpointError
from tinyllm.corpus import CorpusError
from tinyllm.parallel import WorkerDied
from tinyllm.stages import s0_random, s1_pretrain, s2_instruct, s3_prefer, s4_reason
from tinyllm.tokenizer import TokenizerError
from tinyllm.training import Interrupted, RunError, Settings, UsageError

COMMANDS = {                 # name -> (settings, function); the function's docstring is its help
    "train": (commands.Train, commands.train),
    "stage0": (s0_random.Random, s0_random.main),
    "stage1": (s1_pretrain.Pretrain, s1_pretrain.main),
    "stage2": (s2_instruct.Instruct, s2_instruct.main),
    "stage3": (s3_prefer.Prefer, s3_prefer.main),
    "stage4": (s4_reason.Reason, s4_reason.main),
    "control": (s4_reason.Reason, commands.control),
    "rank": (rank.Rank, rank.rank),
    "compare": (exhibits.Compare, exhibits.compare),
    "hacking": (s3_prefer.Prefer, exhibits.hacking),
    "show-mask": (commands.ShowMask, commands.show_mask),
    "shakespeare": (commands.Shakespeare, commands.shakespeare),
    "sample": (commands.Sample, commands.sample),
    "exams": (Settings, commands.take_exams),
    "chat": (chat.Chat, chat.chat),
    "tools-proof": (chat.Proof, chat.proof),
}


def parser():
    top = argparse.ArgumentParser(
        prog="python -m tinyllm", description="A language model from scratch, stage by stage.",
        epilog="python -m tinyllm COMMAND --help lists what a command can be told")
    subs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (settings, function) in COMMANDS.items():
        about = (function.__doc__ or sys.modules[function.__module__].__doc__).strip().splitlines()[0]
        sub = subs.add_parser(name, help=about, description=about,
                              formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for field in dataclasses.fields(settings):
            flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
            more = {"action": "store_true"} if field.type is bool else {
                "type": field.type, "choices": field.metadata.get("choices"), "metavar": field.name.upper()
                if "choices" not in field.metadata else None}
            sub.add_argument(flag, dest=field.name, default=field.default,
                             help=field.metadata["help"], **more)
    return top


def main(argv=None):
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")   # a model writes anything
    options = vars(parser().parse_args(argv))
    settings, function = COMMANDS[options.pop("command")]
    try:
        function(settings(**options))
    except (CheckpointError, CorpusError, RunError, TokenizerError, WorkerDied) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:                                        # `| head` has seen enough
        return 1
    except OSError as error:                                       # a full disk, a folder we may not write to
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
