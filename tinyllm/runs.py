"""A run on disk: its settings, the folders of its stages, and the sources of each stage.

    runs/<run>/0-random/  1-pretrain/  2-instruct/  3-prefer/  4-reason/

Stages exchange data through files. Each stage.json records what the files of its stage were made from:
its settings, its parent checkpoint and its sources. The sources are the files that the stage and its parents
learned from, with their SHA-256. So a later stage can train again on the text of its run, and notices if a
file has changed. stage.json also holds the command that makes the stage again.
"""

import dataclasses
import hashlib
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tinyllm import checkpoint
from tinyllm.checkpoint.files import read_json, sha256, text_files
from tinyllm.errors import TinyllmError, UsageError
from tinyllm.parallel import WorkerPool, available_cores

try:
    import fcntl
except ImportError:  # on Windows, nothing keeps two processes out of the same folder
    fcntl = None

RESUME = "resume.safetensors"  # everything that an unfinished stage needs to continue
WORLD = {"path": "", "sha256": ""}  # the built-in world is made from the seed, so it has no file
NOT_DECISIVE = ("run", "workers", "resume", "save_every", "origin")  # these may differ from stage.json
VARIABLES = "run size seed workers text from data rankings algorithm objective".split()  # in the Makefile


def option(default, help, limits=(0, 10**6), **metadata):
    """A settings field with its help text; __main__.py makes the command line from such fields.

    limits: the smallest and the largest number allowed. source: if the option is the path of a source, the
    kind of that source (see `sources`).
    """
    return field(default=default, metadata={"help": help, "limits": limits, **metadata})


@dataclass(frozen=True)
class Settings:
    """Options shared by all commands. Raises UsageError for a value outside its limits."""

    run: str = option("demo", "name of the run: everything is written to runs/<run>/")
    size: str = option("small", "size of model, data and training", choices=("tiny", "nano", "small", "base"))
    seed: int = option(0, "random seed of the weights, the built-in world and the batches", (0, 2**62))
    workers: int = option(0, "number of processes; it affects rounding (default: one per core)", (0, 1024))
    resume: bool = option(False, "continue an interrupted run where it stopped")

    def __post_init__(self):
        for each in dataclasses.fields(self):
            value, (low, high) = getattr(self, each.name), each.metadata["limits"]
            if each.type in (int, float) and value != each.default and not low <= value <= high:
                name = each.name.replace("_", "-")
                raise UsageError(f"--{name} must be from {low} to {high}, not {value}")
        if not re.fullmatch(r"[^./\\\0-\x1f-][^/\\\0-\x1f]*", self.run):
            raise UsageError(f"--run {self.run!r} cannot be the name of a folder in runs/: use a plain name")

    def folder(self, stage):
        return Path("runs") / self.run / stage

    def as_settings(self, kind):
        """Settings of the class `kind`, with the values of all fields that it shares with these settings."""
        names = {each.name for each in dataclasses.fields(kind)}
        return kind(**{name: value for name, value in vars(self).items() if name in names})

    def pool(self, model, last_layers=None):
        """Start --workers processes that share a model (default: one per available core).

        last_layers: see WorkerPool; by default nothing is trained, which takes far less memory.
        """
        if (last_layers or 0) > model.config.layers:
            raise UsageError(f"--last-layers must be from 0 to {model.config.layers}, not {last_layers}")
        return WorkerPool(model, self.workers or available_cores(), last_layers=last_layers)


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Options shared by the stages that train a model."""

    origin: str = option("", "checkpoint folder to start from (default: the previous stage)", flag="from")
    last_layers: int = option(0, "train only this many of the last layers (0: everything)")
    save_every: int = option(200, "steps between saves", (1, 10**6))


# ---- the sources of a stage


def fingerprint(path):
    """The SHA-256 of a file, or of the names and contents of the text files in a folder. Raises TinyllmError
    if there is no such file or folder, and OSError if it cannot be read."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        raise TinyllmError(f"{path} is not a file or folder" if path.exists() else f"{path} not found")
    names = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in text_files(path)]
    return hashlib.sha256("".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def sources(settings, parent):
    """The sources of a stage -> {kind: {"path", "sha256"}}; an empty path means the built-in world.

    The kinds are text, instructions, rankings and problems. A file named in the settings takes precedence
    over the parent's source of the same kind. The built-in world is the default only if no other source is a
    file of yours. Raises TinyllmError if a source is missing, cannot be mixed with the others, or has changed
    since the parent learned from it.
    """
    kinds = {f.metadata["source"]: f for f in dataclasses.fields(settings) if "source" in f.metadata}
    learned, named = learned_by(parent) if parent else {}, {}
    for kind, each in kinds.items():
        path = getattr(settings, each.name)
        if path:
            if Path("runs").resolve().is_relative_to(Path(path).resolve()):
                raise UsageError(f"{path} contains runs/, whose files change: move your {kind} elsewhere")
            named[kind] = {"path": str(Path(path).resolve()), "sha256": fingerprint(path)}
            replaces = kind != "text" or each.metadata.get("replaces") and settings.origin
            if kind in learned and not replaces and learned[kind]["sha256"] != named[kind]["sha256"]:
                raise TinyllmError(
                    f"{parent} has learned from {learned[kind]['path'] or 'the built-in world'}; {path} is "
                    "a different text and would be mixed with it. Leave out TEXT=, or pre-train on your text "
                    f"first: make stage1 FROM={parent} TEXT={path} RUN=another"
                )
    check_sources(parent, {kind: source for kind, source in learned.items() if kind not in named})
    learned |= named
    if not any(source["path"] for source in learned.values()):
        return dict.fromkeys(kinds, WORLD) | learned
    for kind, each in kinds.items():
        if kind not in learned and kind != "text":  # a checkpoint from elsewhere has no text on record
            raise TinyllmError(
                f"this run learns from your own files, so it cannot use the built-in {kind}: "
                f"name your own with {each.name.upper()}="
            )
    return learned


def check_sources(folder, learned):
    """Raises TinyllmError if a file has changed since the stage in `folder` learned from it."""
    for source in learned.values():
        if source["path"] and fingerprint(source["path"]) != source["sha256"]:
            raise TinyllmError(
                f"{source['path']} has changed since {folder} learned from it. Restore the file, or repeat "
                "the stage that first learned from it, and all later stages, in another RUN="
            )


def learned_by(folder):
    """The sources in the stage.json of `folder`; {} for a checkpoint from elsewhere."""
    learned = read_notes(folder).get("sources", {})
    for source in learned.values():
        if source["path"]:
            existing = filter(Path.exists, places(folder, source["path"]))
            source["path"] = str(next(existing, Path(source["path"])).resolve())
    return learned


def path_of(learned, kind):
    """The path of a source; "" for the built-in world, None if there is no source of this kind."""
    return learned[kind]["path"] if kind in learned else None


# ---- the folders of a run


def read_notes(folder):
    """The stage.json of a folder; {} if it has none."""
    return read_json(folder / "stage.json") if (folder / "stage.json").exists() else {}


def places(folder, path):
    """Where a file or folder recorded in `folder` may be: at the recorded `path` or, if the whole run was
    moved, under the same name next to `folder`."""
    return Path(path), folder.parent / Path(path).name


def lock(folder):
    """Make a folder and keep other processes out of it, until the returned file is closed.

    The operating system releases the lock when the process ends, however it ends. On Windows there is no
    lock. If another process holds the lock, raises TinyllmError with the ID of that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 (the caller closes it)
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read()
        file.close()
        raise TinyllmError(
            f"process {holder} is working in {folder} at this moment: wait for it, or choose another RUN="
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def describe(settings, stage, parent):
    """What a stage is made from, for its stage.json: settings, sources and parent."""
    decisive = {
        each.name: getattr(settings, each.name)
        for each in dataclasses.fields(settings)
        if each.name not in NOT_DECISIVE and "source" not in each.metadata
    }
    start = parent and {"folder": str(parent.resolve()), "sha256": checkpoint.digest(parent)}
    return {"stage": stage, "settings": decisive, "sources": sources(settings, parent), "parent": start}


def nothing_to_do(settings, stage, parent=None):
    """Whether this stage is already finished; if so, print a message.

    Raises TinyllmError if its folder was made with other settings, sources or parent, if another process is
    training in it, or if it holds an interrupted run and --resume is not set.
    """
    folder = settings.folder(stage)
    made = read_notes(folder)
    if not made:
        return False
    lock(folder).close()
    wanted = describe(settings, stage, parent)
    options = made.get("settings", {})
    # If an option is newer than the stage, its default is assumed. Two options had other names then.
    if options:
        renamed = {"direct": options.get("chains") == "left-out", "reward_steps": options.get("steps")}
        options = {each.name: each.default for each in dataclasses.fields(settings)} | renamed | options
    different = differences(options, wanted["settings"])
    old, new = made.get("sources", {}), wanted["sources"]
    for kind in new:
        if old.get(kind, WORLD)["sha256"] != new[kind]["sha256"]:
            different.append(f"{kind} other than {new[kind]['path'] or 'the built-in ' + kind}")
    if (made.get("parent") or {}).get("sha256") != (wanted["parent"] or {}).get("sha256"):
        different.append("another parent checkpoint")
    if different:
        instead = f"repeat your command with RUN={shlex.quote(settings.run)}-2"
        if parent and "/" not in stage:  # a reward model has only some of the settings of stage 3
            again = dataclasses.replace(settings, run=f"{settings.run}-2", origin=str(parent))
            instead = f"make another: {make_command(again, stage)}"
        raise TinyllmError(f"{folder} was made with {', '.join(different)}. Delete it, or {instead}")
    if made.get("finished"):
        print(f"{folder} is finished already. To train again, delete it, or choose another RUN=")
        return True
    if (folder / RESUME).exists() and not settings.resume:
        raise TinyllmError(f"{folder} holds an interrupted run: continue it with RESUME=1, or delete it")
    return False


def differences(made, wanted):
    """The settings of `wanted` that have a different value in `made`, in words."""
    keys = [key for key, value in wanted.items() if made.get(key) != value]
    return [f"{key}={made.get(key)!r} instead of {wanted[key]!r}" for key in keys]


def make_command(settings, stage, only=()):
    """The make command that trains a stage with these settings. only: the options to include (empty: all)."""
    variables, more = [], []
    for each in dataclasses.fields(settings):
        value, flag = getattr(settings, each.name), each.metadata.get("flag", each.name)
        if value == each.default or flag == "resume" or only and flag not in only:
            continue
        if flag in VARIABLES:
            variables.append(f"{flag.upper()}={shlex.quote(str(value))}")
        else:
            text = "" if value is True else f" {shlex.quote(str(value))}"
            more.append(f"--{flag.replace('_', '-')}{text}")
    if more:
        variables.append(f'ARGS="{" ".join(more)}"')
    # An experiment's folder is named after its command.
    target = "control" if stage == "4-control" else stage.partition("/")[0]
    target = f"stage{target[0]}" if target[0].isdigit() else target
    return " ".join([f"make {target}", *variables])


def parent_folder(settings, *stages):
    """The folder that a stage starts from: --from if given, else the first in `stages` that was begun.

    Raises TinyllmError if no stage was begun (the message gives a command to make one), or if the stage is
    unfinished or was made with a different size or seed.
    """
    if settings.origin:
        if Path(settings.origin).is_file():
            raise TinyllmError(f"{settings.origin} is a file, not a folder: convert it with make real MODEL=")
        return Path(settings.origin)
    folders = [settings.folder(stage) for stage in stages]
    folder = next(filter(read_notes, folders), None)
    if folder is None:
        command = make_command(settings, stages[-1], only=("run", "size", "seed", "text"))
        others = [path for path in sorted(Path("runs").glob(f"*/{stages[-1]}")) if is_checkpoint(path)]
        more = f", or start from another run: FROM={others[0]}" if others else ""
        raise TinyllmError(f"{folders[-1]} not found. Make it with: {command}{more}")
    if not is_checkpoint(folder):
        raise TinyllmError(f"{folder} holds an unfinished stage: continue it with RESUME=1, or set FROM=")
    made = read_notes(folder).get("settings", {})
    different = differences(made, {"size": settings.size, "seed": settings.seed})
    if different:
        raise TinyllmError(
            f"{folder} was made with {', '.join(different)}: use SIZE={made.get('size')} "
            f"SEED={made.get('seed')}, or choose another RUN="
        )
    return folder


def ancestors(folder):
    """`folder`, the folder of its parent checkpoint, and so on, as far as they exist."""
    yield folder
    if parent := read_notes(folder).get("parent"):
        for path in places(folder, parent["folder"]):
            known = read_notes(path).get("sha256") in (None, parent.get("sha256"))
            if known and path != folder and (path / "config.json").exists():
                yield from ancestors(path)
                return


def is_checkpoint(folder):
    """Whether `folder` holds a finished stage. (Whether its weights are intact is checked on loading.)"""
    return bool(read_notes(folder).get("finished"))


def finished_stages(run):
    """The folders of the finished stages of a run, in order."""
    return [folder for folder in sorted(Path("runs", run).glob("[0-9]-*")) if is_checkpoint(folder)]


def stage_folder(run, stage):
    """A stage's number or folder name -> its folder; "" is the last finished stage.

    Raises TinyllmError if there is no such stage.
    """
    finished = finished_stages(run)
    matching = [folder for folder in finished if stage in ("", folder.name, folder.name.split("-")[0])]
    if matching:
        return matching[-1]  # 1 means 1-pretrain even if there is a 1-masked
    names = ", ".join(folder.name for folder in finished)
    instead = f"it has {names}" if names else f"make one with: make train RUN={run}"
    raise TinyllmError(f"runs/{run} has no finished stage{stage and f' {stage}'}; {instead}")
