"""The shared part of all training loops: workers, progress line, metrics, save and resume.

    with Run(settings, "1-pretrain", model, tokenizer, steps, parent) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, batch(step), rates)
            ...
    run.folder is then a finished checkpoint

The loop itself stays in the stage, where a reader sees it. A step depends only on the state before it, the
seed and the step number, so with the same number of workers a run that was killed and resumed ends with
the bytes of an uninterrupted run.

An unfinished stage has no model.safetensors. After Ctrl-C its folder holds resume.safetensors (weights,
moments, counters), stage.json with "finished": false, and the logs. A second Ctrl-C skips this
save and leaves the latest periodic save (--save-every), if there is one.
"""

import json
import math
import platform
import signal
import sys
import time

import numpy as np
from tqdm import tqdm

from tinyllm import checkpoint, optimizer
from tinyllm.checkpoint import safetensors
from tinyllm.checkpoint.files import write_json
from tinyllm.errors import TinyllmError
from tinyllm.parallel import LOGITS
from tinyllm.runs import RESUME, describe, lock
from tinyllm.transformer import Parameters

LOGS = ("metrics.jsonl", "samples.txt")


# ---- functions for the workers. A batch is a list of pieces. A piece is a dict of arrays or lists with one
# row per sequence: "ids", and the objective's arguments by name. All its sequences have the same length.


def forward_and_loss(model, objective, piece, total):
    """-> the loss of a piece, its gradient with respect to the model's output, and the cache.

    With ids (B, T) the loss is a sum over positions, and positions of weight 0 are left out: the objective
    gets logits (N, V) and arguments (N, ...). An argument that is a list already omits these positions. With
    ids (P, K, T) the objective compares K sequences and gets all positions.
    """
    ids, arguments = piece["ids"], {name: array for name, array in piece.items() if name != "ids"}
    if ids.ndim == 2:
        at = arguments["weights"] != 0
        out, cache = model.forward(ids, at)
        arguments = {
            name: column[at] if isinstance(column, np.ndarray) else np.concatenate(column)
            for name, column in arguments.items()
        }
    else:
        out, cache = model.forward(ids.reshape(-1, ids.shape[-1]))
        out = out.reshape(*ids.shape, *out.shape[2:])
    loss, dout = objective(out, **arguments, total=total)
    return loss, dout, cache


def compute_gradient(worker, job):
    """Forward and backward over the pieces of one worker, into its gradient buffer -> loss."""
    objective, total, pieces = job
    np.seterr(over="ignore", invalid="ignore")  # a run that diverges ends with a clear error, see train_step
    loss = 0.0
    for i, piece in enumerate(pieces):
        piece_loss, dout, cache = forward_and_loss(worker.model, objective, piece, total)
        loss += piece_loss
        if i == 0:
            worker.model.backward(dout, cache, worker.gradient)
        else:
            gradient = Parameters(worker.model.config, np.zeros_like(worker.gradient.flat))
            worker.model.backward(dout, cache, gradient)
            worker.gradient.flat += gradient.flat
    return loss


def compute_loss(worker, job):
    objective, total, pieces = job
    return sum(forward_and_loss(worker.model, objective, piece, total)[0] for piece in pieces)


def compute_update(worker, job):
    updates, rates, scale, parts = job
    gradient = worker.gradients[0]  # the sum over the workers
    trained = worker.model.params.flat[-gradient.size :]
    for part in parts:
        optimizer.update(part, trained, gradient, worker.moments, updates, rates, scale)


# ---- a run


class Run:
    """The training of one stage in its folder. Use it as a context manager; see the top of the file."""

    def __init__(self, settings, stage, model, tokenizer, steps, parent=None, log_every=10, last_layers=0):
        self.folder, self.stage, self.tokenizer = settings.folder(stage), stage, tokenizer
        self.total_steps, self.log_every = steps, log_every
        self.save_every = getattr(settings, "save_every", 0)
        self.start, self.updates, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.signal, self.validation = None, None
        self.state = {}  # other arrays that a stage needs, saved with the model
        self.notes = describe(settings, stage, parent)
        self.lock = lock(self.folder)
        self.pool = settings.pool(model, last_layers)
        self.model = self.pool.model
        if (self.folder / RESUME).exists():
            self._restore()
        else:
            for name in LOGS:
                (self.folder / name).write_bytes(b"")
            write_json(self.folder / "stage.json", {**self.notes, "finished": False})

    def save(self, step):
        """Write everything that the next step needs into one file."""
        first, second = self.pool.worker.moments
        tensors = {"parameters": self.model.params.flat, "moment1": first, "moment2": second}
        tensors |= {f"state.{name}": array for name, array in self.state.items()}
        counters = {"step": step, "updates": self.updates, "tokens": self.tokens, "seconds": self._elapsed()}
        counters |= {name: (self.folder / name).stat().st_size for name in LOGS}
        counters["workers"] = self.pool.workers
        safetensors.write(self.folder / RESUME, tensors, {"counters": json.dumps(counters)})
        self.saved = step

    def _restore(self):
        tensors, metadata = safetensors.read(self.folder / RESUME)
        counters = json.loads(metadata["counters"])
        if counters["workers"] != self.pool.workers:
            raise TinyllmError(
                f"{self.folder} was begun with WORKERS={counters['workers']}; with {self.pool.workers}, sums "
                f"would round differently: continue with WORKERS={counters['workers']}"
            )
        for vector, name in zip(self.pool.worker.moments, ("moment1", "moment2")):
            vector[:] = tensors.pop(name)
        self.model.params.flat[:] = tensors.pop("parameters")
        self.state = {name.removeprefix("state."): array.copy() for name, array in tensors.items()}
        self.start, self.updates = counters["step"], counters["updates"]
        self.tokens, self.seconds = counters["tokens"], counters["seconds"]
        for name in LOGS:  # lines logged after the save will be logged again
            with open(self.folder / name, "ab") as file:
                file.truncate(min(counters[name], file.tell()))

    def steps(self):
        """Yield the remaining step numbers, and handle the progress line, saves and Ctrl-C."""
        self._announce()
        self.began, self.saved = time.monotonic(), self.start
        self.logged = time.monotonic(), self.tokens
        self.shown, self.reinforced = ("", ""), ""
        line = f" {self.stage} {{n_fmt}}/{{total_fmt}} {{percentage:3.0f}}%  {{desc}}{{remaining}} left"
        interval = 0.2 if sys.stderr.isatty() else 15
        self.bar = tqdm(total=self.total_steps, initial=self.start, bar_format=line, mininterval=interval)
        try:
            for step in range(self.start, self.total_steps):
                yield step
                if step + 1 < self.total_steps:
                    self.bar.update()
                else:
                    self.bar.n += 1  # drawn only when the bar is closed
                if self.signal:
                    self.save(step + 1)
                    raise KeyboardInterrupt(
                        f"interrupted after step {step + 1} of {self.total_steps}, everything is saved. "
                        "To continue, run the same command with RESUME=1 (or --resume)"
                    )
                if self.save_every and (step + 1) % self.save_every == 0 and step + 1 < self.total_steps:
                    self.save(step + 1)
        finally:
            self.bar.close()
            self.seconds = self._elapsed()

    def _announce(self):
        config = self.model.config
        state = (
            f"continuing after step {self.start}" if self.start else f"ln V = {math.log(config.vocab):.3f}"
        )
        size = f"{config.size():,} parameters, {self.total_steps:,} steps, workers: {self.pool.workers}"
        print(f"{self.folder}: {size}, {state}", file=sys.stderr)

    def _elapsed(self):
        return self.seconds + time.monotonic() - self.began

    def train_step(self, step, objective, batch, rates, total=None):
        """Compute the gradient of a batch on all workers, sum, clip and apply it -> loss.

        batch: a list of pieces, see the comment above forward_and_loss. `total` normalises the whole batch
        (default: the sum of its weights). Raises TinyllmError if the loss or the gradient is not finite.
        """
        total = sum_of_weights(batch) if total is None else float(total)
        shares = self.shares(batch)
        loss = sum(self.pool.run(compute_gradient, [(objective, total, pieces) for pieces in shares]))
        norm = optimizer.clip(self.pool.sum_gradients(len(shares)))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TinyllmError(
                f"the loss is {loss} and the gradient norm {norm} at step {step}: the run stops. "
                f"Last saved step: {self.saved}. Try a lower rate"
            )
        scale = rates.scale(step)
        begin = self.model.params.flat.size - self.pool.worker.gradient.flat.size
        parts = optimizer.parts(self.model.config, rates.method, begin)
        jobs = [parts[rank :: self.pool.workers] for rank in range(self.pool.workers)]
        self.pool.run(compute_update, [(self.updates, rates, scale, job) for job in jobs])
        self.updates += 1
        self.tokens += sum(piece["ids"].size for piece in batch)
        if step % self.log_every == 0 or step == self.total_steps - 1:
            self._log(step, loss, norm, scale)
        return loss

    def shares(self, batch):
        """One list of pieces per worker, cut into the fewest micro-batches of about LOGITS logits or fewer,
        to save memory."""
        config, workers, tokens = self.model.config, self.pool.workers, sum(p["ids"].size for p in batch)
        outputs = tokens * (config.vocab if config.head == "tokens" else 1)
        return share_out(batch, workers, accumulate=math.ceil(outputs / (workers * LOGITS)))

    def reset_moments(self):
        """Reset the optimizer to its initial state."""
        self.updates = 0
        for moment in self.pool.worker.moments:
            moment[:] = 0

    def validate(self, step, objective, batch):
        """Compute, show and log the loss of a batch, whose weights must sum to more than 0."""
        total = sum_of_weights(batch)
        shares = self.shares(batch)
        self.validation = sum(self.pool.run(compute_loss, [(objective, total, pieces) for pieces in shares]))
        self._show()
        self.log(step=step, validation_loss=self.validation)
        return self.validation

    def _log(self, step, loss, norm, scale):
        (then, tokens), self.logged = self.logged, (time.monotonic(), self.tokens)
        speed = (self.tokens - tokens) / max(1e-9, self.logged[0] - then)
        self._show(self.reinforced or f"loss {loss:.3f}", f"{speed / 1000:.1f}k tok/s")
        rates = {"gradient_norm": norm, "learning_rate_scale": scale, "tokens_per_second": round(speed)}
        self.log(step=step, loss=loss, **rates, tokens=self.tokens, seconds=round(self._elapsed(), 3))

    def _show(self, loss=None, speed=None):
        """Update the progress line; without arguments, only its validation loss."""
        self.shown = (loss, speed) if loss else self.shown
        validation = f" (val {self.validation:.3f})" if self.validation is not None else ""
        self.bar.set_description_str(f"{self.shown[0]}{validation}  {self.shown[1]}  ", refresh=False)

    def show_reward(self, text):
        """Show `text` in the progress line from now on, instead of a loss that says little."""
        self.reinforced = text
        self._show(text, self.shown[1])

    def log(self, **values):
        """Append one line to metrics.jsonl."""
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(values) + "\n")

    def sample(self, step, text):
        """Print a sample above the progress line, and append it to samples.txt."""
        entry = f"--- step {step}\n{text}\n"
        with open(self.folder / "samples.txt", "a", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(entry)
        tqdm.write(entry, file=sys.stderr)

    def _finish(self):
        """Finish the checkpoint: write the weights, then stage.json, then delete the resume file."""
        checkpoint.save(self.folder, self.model, self.tokenizer)
        notes = {"finished": True, "sha256": checkpoint.digest(self.folder), "steps": self.total_steps}
        notes |= {"tokens": self.tokens, "workers": self.pool.workers, "wall_seconds": round(self.seconds, 1)}
        notes["versions"] = {"python": platform.python_version(), "numpy": np.__version__}
        write_json(self.folder / "stage.json", {**self.notes, **notes})
        (self.folder / RESUME).unlink(missing_ok=True)

    def _on_signal(self, number, _):
        self.signal = number
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C does not wait
        tqdm.write("stopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    def __enter__(self):
        self.handlers = {}
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                self.handlers[name] = signal.signal(name, self._on_signal)
            except ValueError:  # not in the main thread
                pass
        return self

    def __exit__(self, failure, *_):
        try:
            if failure is None:
                self._finish()
        finally:
            for name, handler in self.handlers.items():
                signal.signal(name, handler)
            self.pool.close()
            self.lock.close()
        if failure is None and self.signal:  # after the last step
            raise KeyboardInterrupt(
                f"interrupted, but {self.folder} is finished. Run the same command again for what is left"
            )


def share_out(batch, workers, accumulate):
    """A batch -> one list of pieces per worker: consecutive rows with equal shares of the batch's tokens,
    cut at the nearest row.

    Each share is cut in the same way into `accumulate` micro-batches. If one row has more tokens than a
    share, there may be fewer lists.
    """
    ends = np.linspace(0, sum(piece["ids"].size for piece in batch), workers * accumulate + 1)
    shares, start = [[] for _ in range(workers)], 0
    for piece in batch:
        rows, tokens = len(piece["ids"]), piece["ids"].size
        cuts = np.rint((ends - start) * rows / tokens).clip(0, rows).astype(int)
        for i, (a, b) in enumerate(zip(cuts, cuts[1:])):
            if a < b:
                shares[i // accumulate].append({name: array[a:b] for name, array in piece.items()})
        start += tokens
    return [share for share in shares if share]


def sum_of_weights(batch):
    return float(sum(piece["weights"].sum() for piece in batch))
