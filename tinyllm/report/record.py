"""The files of a run, finished or not: everything that the page knows about the run."""

import functools
import json
import os
import re
import shlex
from html import escape
from pathlib import Path
from urllib.parse import quote

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json
from tinyllm.errors import TinyllmError
from tinyllm.parallel import WorkerPool
from tinyllm.runs import Settings, is_checkpoint, make_command
from tinyllm.sampling import answer
from tinyllm.world import World

STAGES = ("0-random", "1-pretrain", "2-instruct", "3-prefer", "4-reason")
SOURCES = {"text": "text", "instructions": "data", "problems": "data", "rankings": "rankings"}  # -> options


FILES = {"2-instruct": "DATA=FILE", "3-prefer": "RANKINGS=FILE", "4-reason": "DATA=FILE"}  # of your own
WORLD_ONLY = "Only runs on the built-in world have this, because its true answers are known."


class Missing(TinyllmError):
    """A run lacks the data of a panel; the message says what is missing and, if possible, how to make it."""


class Stage:
    """The folder `name` of a run; `page` is the folder that links start from."""

    def __init__(self, run, name, page):
        self.name, self.folder, self.page = name, run / name, page
        folder = self.folder
        self.notes = read_json(folder / "stage.json")
        self.exams = read_json(folder / "exams.json") if (folder / "exams.json").exists() else {}
        self.kind = f"s{self.name[0]}"  # its CSS class: s1 for 1-pretrain, sh for hacking

    def address(self, file):
        return quote(os.path.relpath(self.folder / file, self.page).replace(os.sep, "/"))

    def link(self, file, words=""):
        return f'<a href="{self.address(file)}">{escape(words or f"{self.name}/{file}")}</a>'

    @functools.cached_property
    def log(self):
        """The lines of metrics.jsonl. Skips a last line that is still being written (no newline)."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def series(self, key):
        """[(step, value)] of one key of metrics.jsonl, without the losses of RL steps, which mean nothing."""
        reinforced = {line["step"] for line in self.log if "reward" in line or "score" in line}
        skipped = reinforced if key == "loss" else ()
        return [(line["step"], line[key]) for line in self.log if key in line and line["step"] not in skipped]

    def command(self, run):
        """The command that trains this stage again in the run named `run`."""
        sources = {SOURCES[kind]: source["path"] for kind, source in self.notes["sources"].items()}
        options = self.notes["settings"] | sources | {"workers": self.notes["workers"]}
        flags = [
            f"--{key.replace('_', '-')}" + (f" {shlex.quote(str(x))}" if x is not True else "")
            for key, x in options.items()
            if x is not False and x != ""
        ]
        return f"python -m tinyllm stage{self.name[0]} --run {shlex.quote(run)} {' '.join(flags)}"

    def samples(self):
        """[(step, text)] of samples.txt."""
        words = (self.folder / "samples.txt").read_text(encoding="utf-8", errors="replace")
        _, *parts = re.split(r"^--- step (\d+)\n", words, flags=re.M)
        return list(zip(parts[::2], parts[1::2]))

    @functools.cached_property
    def checkpoint(self):
        """(model, tokenizer)"""
        return checkpoint.load_language_model(self.folder)

    @functools.cached_property
    def pool(self):
        """The checkpoint's model as a pool in this process: the exams take a pool."""
        return WorkerPool(self.checkpoint[0])

    def replies(self, conversations, most):
        """The greedy reply to each conversation, of at most `most` tokens.

        Replies of stage 0 are sampled: the likeliest token of a random model is always the same.
        """
        seed = [0] if self.kind == "s0" else None
        return [text for text, _ in answer(self.pool, self.checkpoint[1], conversations, most, seed)]


class Record:
    """A run: all its `stages` by path, such as "3-prefer/reward", and those of STAGES that are `finished`.
    Raises TinyllmError if the run has no stage."""

    def __init__(self, run, page):
        self.name, self.folder = run, Path("runs") / run
        found = sorted(path.parent for path in self.folder.rglob("stage.json"))
        if not found:
            raise TinyllmError(f"{self.folder} has no stage. Make one with: make train RUN={run}")
        names = [path.relative_to(self.folder).as_posix() for path in found]
        self.stages = {name: Stage(self.folder, name, page) for name in names}
        self.finished = [self.stages[name] for name in STAGES if is_checkpoint(self.folder / name)]
        made = next(iter(self.stages.values())).notes["settings"]
        self.size, self.seed = made["size"], made["seed"]

    @property
    def done(self):
        """The finished stages, at least one. Raises Missing."""
        return self.finished or [self.stage(STAGES[0])]

    @property
    def policy_and_reference(self):
        """The last of the first four finished stages and the one before it (itself if it is the first)."""
        return self.done[:4][-1], self.done[:4][-2:][0]

    def stage(self, name):
        """The stage `name`. Raises Missing if it is not finished."""
        if not is_checkpoint(self.folder / name):
            if self.has_own_files and name not in STAGES:
                raise Missing(WORLD_ONLY)
            settings = Settings(run=self.name, size=self.size, seed=self.seed)
            state = "not finished: add RESUME=1 to" if name in self.stages else "missing. Make it with:"
            files = f" {FILES[name]}" if self.has_own_files and name in FILES else ""
            raise Missing(f"{name} is {state} {make_command(settings, name, new=False)}{files}")
        return self.stages[name]

    @property
    def has_own_files(self):
        sources = [each for stage in self.stages.values() for each in stage.notes["sources"].values()]
        return any(source["path"] for source in sources)

    @functools.cached_property
    def world(self):
        """The built-in world of the run. Raises Missing if the run learned from other files."""
        if self.has_own_files:
            raise Missing(WORLD_ONLY)
        return World(self.seed)
