"""What all stages share around their loop: a folder, a team of workers, a progress line, a way back.

    with Run(settings, "1-pretrain", model, tokenizer, steps=..., parent=...) as run:
        for step in run.steps():
            loss = run.train(step, weighted_nll, pieces, rates)
            ...
        run.finish()

The loop itself stands in the stage. What happens in a step depends on the seed and the step alone,
never on how the process got there: a run that was killed and resumed ends in the same bytes.
"""

import json
import math
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyllm import checkpoint, optimizer
from tinyllm.parallel import Team
from tinyllm.transformer import Parameters


class RunError(Exception):
    """The run cannot start or go on; nothing on disk is lost. The message says what to do."""


class UsageError(RunError):
    """An option, or a combination of them, that makes no sense."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the run is saved and can be resumed."""


def option(default, text, **more):
    """A settings field with its help text: __main__.py makes the command line from these."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class Settings:
    """What every stage can be told. All but `workers` and `resume` decide what comes out."""
    run: str = option("demo", "name of the run: everything is written to runs/<run>/")
    size: str = option("small", "size of the built-in recipe", choices=("nano", "small", "base"))
    seed: int = option(0, "makes the weights, the built-in world and the order of the batches")
    workers: int = option(0, "processes that share the work (default: one per core)")
    resume: bool = option(False, "continue an interrupted run where it stopped")

    def __post_init__(self):
        for name, value in vars(self).items():
            default = getattr(type(self), name) == value
            if isinstance(value, (int, float)) and not (default or 0 <= value < math.inf):
                raise UsageError(f"--{name.replace('_', '-')} must be 0 or more, not {value}")

    def folder(self, stage):
        return Path("runs") / self.run / stage

    def team_size(self):
        if hasattr(os, "sched_getaffinity"):                       # not all cores may be ours
            return self.workers or len(os.sched_getaffinity(0))
        return self.workers or os.cpu_count() or 1


@dataclass(frozen=True)
class Rates:
    """How fast the optimizer moves; peaks of a schedule that rises over `warmup` steps and falls to 0 over
    the last `falling` of all."""
    method: str = "muon"
    muon: float = 0.01
    adamw: float = 3e-3
    decay: float = 0.1
    warmup: int = 100
    falling: float = 1.0


# ---- what workers compute ------------------------------------------------------------------------

def compute_gradient(replica, pieces):
    """Forward and backward over pieces of a batch, one after the other, into this worker's buffer -> loss."""
    loss = 0.0
    np.seterr(over="ignore", invalid="ignore")     # a run that diverges is stopped with a sentence, below
    for i, (objective, total, ids, *rest) in enumerate(pieces):
        out, cache = replica.model.forward(ids.reshape(-1, ids.shape[-1]))
        piece_loss, dout = objective(out.reshape(*ids.shape, *out.shape[2:]), *rest, total)
        into = replica.gradient if i == 0 else Parameters(replica.model.config)
        replica.model.backward(dout.reshape(out.shape), cache, into)
        if i:
            replica.gradient.flat += into.flat
        loss += piece_loss
    return loss


def compute_loss(replica, piece):
    objective, total, ids, *rest = piece
    return objective(replica.model.forward(ids)[0], *rest, total)[0]


def compute_update(replica, job):
    step, rates, scale, parts = job
    for part in parts:
        optimizer.update(part, replica.model.params.flat, replica.gradients[0].flat, replica.moments,
                         step, scale * rates.muon, scale * rates.adamw, rates.decay)


# ---- a run ---------------------------------------------------------------------------------------

class Run:
    """One stage being trained in its folder. See the top of the file."""

    def __init__(self, settings, stage, model, tokenizer, steps, parent=None, save_every=200, log_every=10):
        self.stage, self.folder, self.tokenizer, self.total = stage, settings.folder(stage), tokenizer, steps
        self.save_every, self.log_every = save_every, log_every
        self.start, self.tokens, self.seconds, self.signal, self.validation = 0, 0, 0.0, None, None
        self.memory = {}                       # arrays that a stage needs besides, saved with the rest
        self.described = describe(settings, stage, parent)
        self.team = Team.of(model, settings.team_size())
        self.model = self.team.replica.model
        if (self.folder / "resume").exists():
            self._restore()
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in ("metrics.jsonl", "samples.txt"):
                (self.folder / name).write_bytes(b"")
            write_json(self.folder / "stage.json", {**self.described, "finished": False})

    def _restore(self):
        resume = self.folder / "resume"
        model, _ = checkpoint.load(resume)
        self.model.params.flat[:] = model.params.flat
        tensors = checkpoint.read_tensors(resume / "optimizer.safetensors")
        for mine, saved in zip(self.team.replica.moments, (tensors["moment1"], tensors["moment2"])):
            mine[:] = saved
        if (resume / "memory.safetensors").exists():
            self.memory = checkpoint.read_tensors(resume / "memory.safetensors")
        state = read_json(resume / "state.json")
        self.start, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        for name in ("metrics.jsonl", "samples.txt"):              # what came later comes again
            with open(self.folder / name, "ab") as file:
                file.truncate(min(state[name], file.tell()))

    def save(self, step):
        """Everything that the next step needs, in resume/: a whole checkpoint folder of its own."""
        first, second = self.team.replica.moments
        sizes = {name: (self.folder / name).stat().st_size for name in ("metrics.jsonl", "samples.txt")}
        state = {"step": step, "tokens": self.tokens, "seconds": self._elapsed(), **sizes}
        checkpoint.save(self.folder / "resume", self.model, self.tokenizer, extra={
            "state.json": state, "optimizer.safetensors": {"moment1": first, "moment2": second},
            **({"memory.safetensors": self.memory} if self.memory else {})})
        self.saved = step

    def announce(self, objective, pieces, rates, accumulate=1):
        """Say what is to come: parameters, tokens, memory and time, by a step that is timed and undone."""
        model, team, total = self.model, self.team, weight_of(pieces)
        if self.start:
            print(f"{self.folder}: continuing after step {self.start} of {self.total}", file=sys.stderr)
            return
        self._gradient(objective, pieces, total, accumulate)
        began = time.monotonic()
        loss, _ = self._gradient(objective, pieces, total, accumulate)
        self._update(0, rates, 0.0)                            # a rate of 0 changes no parameter
        seconds = self.total * (time.monotonic() - began)
        self.forget_moments()
        largest = max(deal(pieces, team.workers, accumulate)[0], key=lambda piece: piece[0].size)
        ids = largest[0].reshape(-1, largest[0].shape[-1])
        seen = {id(a): a.nbytes for a in _arrays(model.forward(ids))}
        memory = (3 + team.workers) * model.params.flat.nbytes + team.workers * sum(seen.values())
        tokens = sum(ids.size for ids, *_ in pieces)
        print(f"{self.stage}: {model.config.size():,} parameters, {self.total:,} steps of {tokens:,} tokens "
              f"({self.total * tokens / 1e6:.1f} M), {memory / 2**20:.0f} MB, about {int(seconds) // 60}:"
              f"{int(seconds) % 60:02} minutes with {team.workers} worker{'s' * (team.workers > 1)}; "
              f"loss {loss:.3f}, ln V = {math.log(model.config.vocab):.3f}", file=sys.stderr)

    def _elapsed(self):
        return self.seconds + time.monotonic() - self.began

    def forget_moments(self):
        """The optimizer begins anew, as at step 0."""
        for moment in self.team.replica.moments:
            moment[:] = 0

    def steps(self):
        """Step numbers from where the run stands to its end, with progress line, checkpoints and Ctrl-C."""
        self.began, self.saved = time.monotonic(), self.start
        self.speed, self.shown = (time.monotonic(), self.tokens), ("", "")
        quiet = not sys.stderr.isatty()
        line = f" {self.stage} {{n_fmt}}/{{total_fmt}} {{percentage:3.0f}}%  {{desc}}{{remaining}} left"
        self.bar = tqdm(total=self.total, initial=self.start, file=sys.stderr, bar_format=line,
                        mininterval=15 if quiet else 0.2)
        try:
            for step in range(self.start, self.total):
                yield step
                self.bar.update()
                if self.signal:
                    self.save(step + 1)
                    raise Interrupted(f"interrupted after step {step + 1} of {self.total}, all saved. "
                                      "To continue: the same command with RESUME=1 (or --resume)")
                if (step + 1) % self.save_every == 0 and step + 1 < self.total:
                    self.save(step + 1)
        finally:
            self.bar.close()
            self.seconds = self._elapsed()

    def train(self, step, objective, pieces, rates, total=None, accumulate=1, until=None,
              updates=None):
        """One step: the gradient of a batch, spread over the workers, summed, clipped, applied -> loss.

        A batch is a list of pieces, each of sequences of one length: arrays with one row per sequence (or
        per group of sequences that belong together), ids first, the rest for the objective. `total`
        normalises the whole batch (default: its weights, which are the last of the arrays). The schedule ends
        at the step `until` (that of the run). `updates` came before this one, where that is another number
        than `step`. Raises RunError where the loss is not finite.
        """
        total = weight_of(pieces) if total is None else float(total)
        loss, norm = self._gradient(objective, pieces, total, accumulate)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise RunError(f"the loss is {loss} and the gradient norm {norm} at step {step}: the run stops. "
                           f"The last good checkpoint is that of step {self.saved}; try a lower rate")
        until = until or self.total
        scale = optimizer.schedule(step, until, min(rates.warmup, until // 10), rates.falling)
        self._update(step if updates is None else updates, rates, scale)
        self.tokens += sum(ids.size for ids, *_ in pieces)
        if step % self.log_every == 0 or step == self.total - 1:
            self._log(step, loss, norm, scale)
        return loss

    def _gradient(self, objective, pieces, total, accumulate):
        shares = [[(objective, total, *piece) for piece in share]
                  for share in deal(pieces, self.team.workers, accumulate)]
        loss = sum(self.team.run(compute_gradient, shares))
        return loss, optimizer.clip(self.team.sum_gradients(len(shares)))

    def _update(self, step, rates, scale):
        workers, parts = self.team.workers, optimizer.parts(self.model.config, rates.method)
        self.team.run(compute_update, [(step, rates, scale, parts[w::workers]) for w in range(workers)])

    def _log(self, step, loss, norm, scale):
        then, tokens = self.speed
        self.speed = (time.monotonic(), self.tokens)
        rate = (self.tokens - tokens) / max(1e-9, self.speed[0] - then)
        self.shown = f"loss {loss:.3f}", f"  {rate / 1000:.1f}k tok/s  "
        self._show()
        self.metric(step=step, loss=loss, gradient_norm=norm, learning_rate_scale=scale,
                    tokens=self.tokens, tokens_per_second=round(rate), seconds=round(self._elapsed(), 3))

    def _show(self):
        seen = f" (val {self.validation:.3f})" if self.validation is not None else ""
        self.bar.set_description_str(seen.join(self.shown), refresh=False)

    def validate(self, step, objective, pieces):
        """The loss over all of `pieces` (with weights that sum to more than 0), shown and written down."""
        total = weight_of(pieces)
        self.validation = sum(self.team.run(compute_loss, [(objective, total, *piece) for piece in pieces]))
        self._show()
        self.metric(step=step, validation_loss=self.validation)
        return self.validation

    def metric(self, **values):
        """One line in metrics.jsonl."""
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(values) + "\n")

    def sample(self, step, text):
        """What the model says at this step: above the progress line, and in samples.txt."""
        said = f"--- step {step}\n{text}\n"
        with open(self.folder / "samples.txt", "a", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(said)
        tqdm.write(said, file=sys.stderr)

    def finish(self):
        """The stage's folder becomes a finished checkpoint; resume/ goes."""
        notes = {**self.described, "finished": True, "wall_seconds": round(self.seconds, 1),
                 "steps": self.total, "tokens": self.tokens, "workers": self.team.workers,
                 "versions": {"python": platform.python_version(), "numpy": np.__version__}}
        checkpoint.save(self.folder, self.model, self.tokenizer, {"stage.json": notes}, drop=("resume",))
        self._give_back_signals()                                  # what follows may be interrupted as usual

    def _on_signal(self, number, _):
        self.signal = number
        signal.signal(number, signal.default_int_handler)          # a second Ctrl-C does not wait
        tqdm.write("stopping after this step; once more to stop at once", file=sys.stderr)

    def __enter__(self):
        self.handlers = {}
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                self.handlers[name] = signal.signal(name, self._on_signal)
            except ValueError:                                     # not in the main thread
                pass
        return self

    def _give_back_signals(self):
        for name, handler in self.handlers.items():
            signal.signal(name, handler)

    def __exit__(self, *_):
        self._give_back_signals()
        self.team.close()


# ---- helpers -------------------------------------------------------------------------------------

def is_finished(settings, stage, parent=None):
    """Whether this stage lies finished in its folder.

    Raises RunError where the folder was made with other settings, or holds an unfinished run that
    nobody asked to resume: training over it would lose what it has computed.
    """
    folder = settings.folder(stage)
    checkpoint.recover(folder)
    if not (folder / "stage.json").exists():
        return False
    found, wanted = read_json(folder / "stage.json"), describe(settings, stage, parent)
    made = found.get("settings", {})
    other = [f"{key}={made.get(key)!r} instead of {value!r}"
             for key, value in wanted["settings"].items() if made.get(key) != value]
    other += ["another parent checkpoint"] if found.get("parent") != wanted["parent"] else []
    if other:
        raise RunError(f"{folder} was made with {', '.join(other)}: "
                       "choose another RUN=, or delete that folder")
    if found.get("finished"):
        print(f"{folder} is finished already; delete it, or choose another RUN=, to train again")
        return True
    if (folder / "resume").exists() and not settings.resume:
        step = read_json(folder / "resume" / "state.json")["step"]
        raise RunError(f"{folder} holds an interrupted run, saved after step {step}: "
                       "continue it with RESUME=1 (or --resume), or delete that folder")
    return False


def parent_of(settings, stage, target):
    """The folder that a stage starts from: --from where given, else the earlier stage of the same run.

    Raises RunError, with the command that makes it, where it is missing, and where it was made for
    another size or seed.
    """
    if settings.origin:
        return Path(settings.origin)
    folder = settings.folder(stage)
    checkpoint.recover(folder)
    if not (folder / "model.safetensors").exists():
        raise RunError(f"{folder} not found. Make it with: "
                       f"make {target} RUN={settings.run} SIZE={settings.size} SEED={settings.seed}")
    made = read_json(folder / "stage.json").get("settings", {})
    for name in ("size", "seed"):
        if made.get(name) != getattr(settings, name):
            raise RunError(f"{folder} was made with {name}={made.get(name)!r} instead of "
                           f"{getattr(settings, name)!r}: choose another RUN=, or delete that folder")
    return folder


def describe(settings, stage, parent):
    """What decides the bytes of a stage: its settings and the checkpoint that it started from."""
    decides = asdict(settings)
    for key in ("run", "workers", "resume"):
        del decides[key]
    return {"stage": stage, "settings": decides,
            "parent": parent and {"folder": str(parent), "sha256": checkpoint.digest(parent)}}


def share_out(batch, count):
    """A batch (arrays with equal numbers of rows) cut into at most `count` nearly equal batches, in order."""
    cuts = np.linspace(0, len(batch[0]), min(count, len(batch[0])) + 1).astype(int)
    return [tuple(array[a:b] for array in batch) for a, b in zip(cuts, cuts[1:])]


def deal(pieces, workers, accumulate):
    """Pieces of a batch -> for each worker the pieces that it computes: its rows of each, cut into at most
    `accumulate`."""
    shares = [share_out(piece, workers) for piece in pieces]
    return [[part for share in shares if worker < len(share) for part in share_out(share[worker], accumulate)]
            for worker in range(max(map(len, shares)))]


def weight_of(pieces):
    return float(sum(weights.sum() for *_, weights in pieces))


def _arrays(value):
    """Every array in nested tuples and lists."""
    if isinstance(value, np.ndarray):
        yield value if value.base is None else value.base
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)


def read_json(path):
    """A JSON object that a run has written. Raises RunError where it is missing or damaged."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it is not a JSON object")
    return found


def write_json(path, value):
    """Whole or not at all: written beside `path`, then renamed."""
    beside = Path(f"{path}.new")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    os.replace(beside, path)
