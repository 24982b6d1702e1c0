"""The files of a run, finished or not: everything that the page knows about the run."""

import functools
import json
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, reading
from tinyllm.errors import TinyllmError
from tinyllm.parallel import WorkerPool
from tinyllm.runs import Settings, is_checkpoint, make_command
from tinyllm.sampling import answer
from tinyllm.world import World

STAGES = ("0-random", "1-pretrain", "2-instruct", "3-prefer", "4-reason")
TOKENS = {"0-random": 20, "4-reason": 270}  # token limits of replies; 60 in other stages


class Stage:
    """The stage `name`, such as "3-prefer/reward", of a run.

    mark: " other" if the run is overlaid on the run of the page; it is added to labels and CSS classes.
    """

    def __init__(self, run, name, mark):
        self.run, self.name, self.mark, self.folder = run, name, mark, Path("runs") / run / name
        self.notes, exams = read_json(self.folder / "stage.json"), self.folder / "exams.json"
        self.exams = read_json(exams) if exams.exists() else {}
        self.kind = f"s{name[0]}{mark}"  # its CSS classes: s1 for 1-pretrain, sh for hacking

    def address(self, file):
        """The relative URL of a file of this stage; it works on the page of any run."""
        return quote(f"../{self.run}/{self.name}/{file}")

    def link(self, file="model.safetensors", words=""):
        return f'<a href="{self.address(file)}">{escape(words or f"{self.name}/{file}")}</a>'

    @functools.cached_property
    def log(self):
        """The lines of metrics.jsonl. Skips the last line if it is still being written (has no newline)."""
        path = self.folder / "metrics.jsonl"
        with reading(path, "lines of JSON"):
            return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]

    def series(self, key):
        """[(step, value)] of one key of metrics.jsonl. The loss of RL steps is left out: it says nothing."""
        reinforced = {line["step"] for line in self.log if "reward" in line or "score" in line}
        skipped = reinforced if key == "loss" else ()
        return [(line["step"], line[key]) for line in self.log if key in line and line["step"] not in skipped]

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
        """The checkpoint's model as a pool in this process, because the exams take a pool."""
        return WorkerPool(self.checkpoint[0])

    def replies(self, tasks):
        """A greedy reply to each task (world/task.py).

        Replies of stage 0 are sampled: the likeliest token of a random model is always the same.
        """
        seed = [0] if self.kind == "s0" else None
        prompts, most = [task.prompt for task in tasks], TOKENS.get(self.name, 60)
        return [text for text, _ in answer(self.pool, self.checkpoint[1], prompts, most, seed)]


def stages_of(run, mark=""):
    """{name: Stage}, sorted by name. Raises TinyllmError if the run has no stage."""
    folder = Path("runs") / run
    names = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("stage.json"))
    if not names:
        raise TinyllmError(f"{folder} has no stage. Make one with: make train RUN={run}")
    return {name: Stage(run, name, mark) for name in names}


class Record:
    """A run: `stages` has all its stages by name; `finished` lists the finished ones among STAGES;
    `all_stages` lists its stages, followed by those of the run `against` if one is given.

    Raises TinyllmError if either run has no stage.
    """

    def __init__(self, run, against=""):
        self.name, self.folder, self.stages = run, Path("runs") / run, stages_of(run)
        self.finished = [self.stages[name] for name in STAGES if is_checkpoint(self.folder / name)]
        others = stages_of(against, " other") if against else {}
        self.all_stages = [*self.stages.values(), *others.values()]
        settings = self.all_stages[0].notes["settings"]
        self.size, self.seed = settings["size"], settings["seed"]

    @property
    def policy_and_reference(self):
        """The last finished stage up to stage 3, and the one before it. If there is only one, it is both."""
        stages = [s for s in self.finished if s.name < "4"] or self.finished or [self.stage("0-random")]
        return stages[-1], stages[-2:][0]

    def stage(self, name):
        """The stage `name`. If it is not finished, raises TinyllmError with the command that makes it."""
        if not is_checkpoint(self.folder / name):
            settings = Settings(run=self.name, size=self.size, seed=self.seed)
            state = "not finished: add RESUME=1 to" if name in self.stages else "missing. Make it with:"
            raise TinyllmError(f"{name} is {state} {make_command(settings, name)}")
        return self.stages[name]

    @functools.cached_property
    def world(self):
        """The built-in world of the run. Raises TinyllmError if the run learned from files instead."""
        sources = [each for stage in self.stages.values() for each in stage.notes["sources"].values()]
        if any(source["path"] for source in sources):
            raise TinyllmError("This needs a run on the built-in world, whose true answers are known.")
        return World(self.seed)
