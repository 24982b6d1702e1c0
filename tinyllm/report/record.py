"""The files of a run, finished or not: everything that the page knows about the run."""

import functools
import json
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
OPTIONS = {"text": "text", "instructions": "data", "problems": "data", "rankings": "rankings"}  # of sources


class Stage:
    """The stage `name`, such as "3-prefer/reward", of a run."""

    def __init__(self, run, name):
        self.run, self.name, self.folder = run, name, Path("runs") / run / name
        self.notes, exams = read_json(self.folder / "stage.json"), self.folder / "exams.json"
        self.exams = read_json(exams) if exams.exists() else {}
        self.kind = f"s{name[0]}"  # its CSS class: s1 for 1-pretrain, sh for hacking

    def address(self, file):
        """The address of a file of this stage in the page of any run."""
        return quote(f"../{self.run}/{self.name}/{file}")

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

    def command(self):
        """The command that trains this stage again."""
        options = {OPTIONS[kind]: source["path"] for kind, source in self.notes["sources"].items()}
        options |= self.notes["settings"] | {"workers": self.notes["workers"]}
        words = ["python", "-m", "tinyllm", f"stage{self.name[0]}", "--run", self.run]
        for name, value in options.items():
            if value is not False and value != "":
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return shlex.join(words)

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
    """A run: all its `stages` by name, and those of STAGES that are `finished`.

    Raises TinyllmError if the run has no stage.
    """

    def __init__(self, run):
        self.name, self.folder = run, Path("runs") / run
        paths = sorted(path.parent for path in self.folder.rglob("stage.json"))
        if not paths:
            raise TinyllmError(f"{self.folder} has no stage. Make one with: make train RUN={run}")
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        self.stages = {name: Stage(run, name) for name in names}
        self.finished = [self.stages[name] for name in STAGES if is_checkpoint(self.folder / name)]
        made = self.stages[names[0]].notes["settings"]
        self.size, self.seed = made["size"], made["seed"]

    @property
    def done(self):
        """The finished stages. Raises TinyllmError if there is none."""
        return self.finished or [self.stage(STAGES[0])]

    @property
    def policy_and_reference(self):
        """The last of the first four finished stages and the one before it (itself if it is the first)."""
        return self.done[:4][-1], self.done[:4][-2:][0]

    def stage(self, name):
        """The stage `name`. Raises TinyllmError, with the command that makes it, if it is not finished."""
        if not is_checkpoint(self.folder / name):
            settings = Settings(run=self.name, size=self.size, seed=self.seed)
            state = "not finished: add RESUME=1 to" if name in self.stages else "missing. Make it with:"
            raise TinyllmError(f"{name} is {state} {make_command(settings, name, new=False)}")
        return self.stages[name]

    @functools.cached_property
    def world(self):
        """The built-in world of the run. Raises TinyllmError if the run learned from other files."""
        sources = [each for stage in self.stages.values() for each in stage.notes["sources"].values()]
        if any(source["path"] for source in sources):
            raise TinyllmError("Only runs on the built-in world have this: its true answers are known.")
        return World(self.seed)
