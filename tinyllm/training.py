"""The shared part of all training loops: workers, progress line, metrics, save and resume.

    with Run(settings, "1-pretrain", model, tokenizer, steps, parent) as run:
        for step in run.steps():
            run.train_step(step, weighted_nll, batch(step), rates)
            ...
    # run.folder is now a finished checkpoint

The loop itself is written out in each stage, where a reader sees it. A step depends only on the previous
state, the seed and the step number. So, with the same number of workers, a run that was killed and resumed
ends with exactly the same weights as an uninterrupted one.

stage.json marks a stage as finished only after its weights are written. After Ctrl-C the folder holds
resume.safetensors (weights, moments, counters, and whatever else the stage needs), stage.json with
"finished": false, and the logs. A second Ctrl-C skips this save and leaves the latest periodic save
(--save-every), if there is one.
"""

import dataclasses
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
from tinyllm.runs import RESUME, describe, lock, make_command
from tinyllm.transformer import Parameters

LOGS = ("metrics.jsonl", "samples.txt")


# ---- functions for the workers. A batch is a list of pieces. A piece is a dict of arrays or lists with one
# row per sequence: "ids", and the objective's arguments by name. All sequences of a piece have the same
# length.


def forward_and_loss(model, objective, piece, total):
    """-> the loss of a piece, its gradient with respect to the model's output, and the cache.

    With ids (B, T) the loss is a sum over positions, and positions of weight 0 are left out: the objective
    gets logits (N, V) and arguments (N, ...). An argument that is a list (one array per row) has no
    entries for positions of weight 0. With ids (P, K, T) the objective compares K sequences and gets
    the outputs at all positions.
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
    """Forward and backward pass over a worker's pieces -> loss. The gradient goes to the worker's buffer."""
    objective, total, pieces = job
    np.seterr(over="ignore", invalid="ignore")  # train_step reports a run that diverges
    loss, whole = 0.0, worker.gradient
    for i, piece in enumerate(pieces):
        piece_loss, dout, cache = forward_and_loss(worker.model, objective, piece, total)
        gradient = Parameters(worker.model.config, np.zeros_like(whole.flat)) if i else whole
        worker.model.backward(dout, cache, gradient)
        if i:
            whole.flat += gradient.flat
        loss += piece_loss
    return loss


def compute_loss(worker, job):
    """Forward pass over the pieces of one worker -> loss."""
    objective, total, pieces = job
    return sum(forward_and_loss(worker.model, objective, piece, total)[0] for piece in pieces)


def compute_update(worker, job):
    """Update this worker's share of the trained parameters."""
    updates, rates, scale = job
    config, gradient = worker.model.config, worker.gradients[0]  # the sum over the workers
    trained = worker.model.params.flat[-gradient.size :]
    parts = optimizer.parts(config, rates.method, config.size() - gradient.size)
    for part in parts[worker.rank :: len(worker.gradients)]:
        optimizer.update(part, trained, gradient, worker.moments, updates, rates, scale)


# ---- a run


class Run:
    """The training of one stage in its folder. Use a Run as a context manager; see the top of the file."""

    def __init__(self, settings, stage, model, tokenizer, steps, parent=None, log_every=10):
        self.folder, self.stage, self.tokenizer = settings.folder(stage), stage, tokenizer
        self.total_steps, self.log_every = steps, log_every
        self.save_every = getattr(settings, "save_every", 0)
        self.start, self.updates, self.tokens = 0, 0, 0
        self.began, self.signal = time.perf_counter(), None
        self.shown = {"loss": "", "validation": "", "speed": ""}  # in the progress line
        self.notes = describe(settings, stage, parent)
        self.lock = lock(self.folder)
        self.pool = settings.pool(model, getattr(settings, "last_layers", 0))
        self.model = self.pool.model
        again = dataclasses.replace(settings, workers=self.pool.workers)
        self.notes["command"] = make_command(again, stage)
        # All arrays that the next step needs; a stage may add its own.
        self.state = {"parameters": self.model.params.flat, "moments": self.pool.worker.moments}
        sizes = self._restore() if (self.folder / RESUME).exists() else {}
        for name in LOGS:  # cut off what was logged after the last save: it will be logged again
            with open(self.folder / name, "ab") as file:
                file.truncate(min(sizes.get(name, 0), file.tell()))
        write_json(self.folder / "stage.json", {**self.notes, "finished": False})

    def save(self, step):
        """Write everything that the next step needs into one file."""
        counters = {"step": step, "updates": self.updates, "tokens": self.tokens, "seconds": self._elapsed()}
        counters |= {name: (self.folder / name).stat().st_size for name in LOGS}
        counters["workers"] = self.pool.workers
        safetensors.write(self.folder / RESUME, self.state, {"counters": json.dumps(counters)})
        self.saved = step

    def _restore(self):
        """Go back to the last save -> its counters, including the sizes of the logs."""
        tensors, metadata = safetensors.read(self.folder / RESUME)
        counters = json.loads(metadata["counters"])
        if counters["workers"] != self.pool.workers:
            raise TinyllmError(
                f"{self.folder} was begun with WORKERS={counters['workers']}; with {self.pool.workers}, sums "
                f"would round differently: continue with WORKERS={counters['workers']}"
            )
        if not self.state.keys() <= tensors.keys():
            raise TinyllmError(f"{self.folder} was begun by an older version: delete it to begin again")
        for name, array in self.state.items():
            array[:] = tensors.pop(name)
        self.state |= {name: array.copy() for name, array in tensors.items()}
        self.start, self.updates, self.tokens = (counters[name] for name in ("step", "updates", "tokens"))
        self.began -= counters["seconds"]
        return counters

    def steps(self):
        """Yield the remaining step numbers, and handle the progress line, saves and Ctrl-C."""
        config, total, self.saved = self.model.config, self.total_steps, self.start
        steps = f"{total:,} steps, {self.start:,} of them done" if self.start else f"{total:,} steps"
        size = f"{config.size():,} parameters, ln V = {math.log(config.vocab):.3f}"
        print(f"{self.folder}: {size}, {steps}, workers: {self.pool.workers}", file=sys.stderr)
        line = f" {self.stage} {{n_fmt}}/{{total_fmt}} {{percentage:3.0f}}%  {{desc}}{{remaining}} left"
        interval = 1 if sys.stderr.isatty() else 15
        self.bar = tqdm(total=total, initial=self.start, bar_format=line, mininterval=interval)
        try:
            for step in range(self.start, total):
                self.bar.update(0)  # draw the progress line, unless it was drawn a moment ago
                yield step
                self.bar.n = done = step + 1
                if done == total:
                    break
                if self.signal or self.save_every and done % self.save_every == 0:
                    self.save(done)
                if self.signal:
                    raise KeyboardInterrupt(
                        f"interrupted after step {done} of {total}; everything is saved. "
                        "To continue, run the same command with RESUME=1 (or --resume)"
                    )
        finally:
            self.bar.close()

    def _elapsed(self):
        """Seconds of training, including those before an interruption."""
        return time.perf_counter() - self.began

    def train_step(self, step, objective, batch, rates, total=None):
        """Compute the gradient of a batch on all workers, sum it, clip it and update the parameters -> loss.

        batch: a list of pieces, see the comment above forward_and_loss. total: what the loss of the batch is
        divided by (default: the sum of its weights). Raises TinyllmError if the loss or the gradient is not
        finite.
        """
        jobs = self.jobs(objective, batch, total)
        loss = sum(self.pool.run(compute_gradient, jobs))
        norm = optimizer.clip(self.pool.sum_gradients(len(jobs)))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TinyllmError(
                f"the loss is {loss} and the gradient norm {norm} at step {step}: the run stops. "
                f"Last saved step: {self.saved}. Try a lower learning rate"
            )
        scale = rates.scale(step)
        self.pool.run(compute_update, [(self.updates, rates, scale)] * self.pool.workers)
        self.updates += 1
        self.tokens += sum(piece["ids"].size for piece in batch)
        if step % self.log_every == 0 or step == self.total_steps - 1:
            seconds = self._elapsed()
            speed = self.tokens / seconds
            self.show(loss=f"loss {loss:.3f}", speed=f"{speed / 1000:.1f}k tok/s")
            logged = {"step": step, "loss": loss, "gradient_norm": norm, "learning_rate_scale": scale}
            self.log(**logged, tokens_per_second=round(speed), tokens=self.tokens, seconds=round(seconds, 3))
        return loss

    def jobs(self, objective, batch, total=None):
        """A batch -> one (objective, total, pieces) per worker. To save memory, the pieces are cut into
        micro-batches of at most about LOGITS logits."""
        config, workers, tokens = self.model.config, self.pool.workers, sum(p["ids"].size for p in batch)
        outputs = tokens * (config.vocab if config.head == "tokens" else 1)
        shares = share_out(batch, workers, accumulate=math.ceil(outputs / (workers * LOGITS)))
        total = sum(piece["weights"].sum() for piece in batch) if total is None else total
        return [(objective, float(total), pieces) for pieces in shares]

    def reset_moments(self):
        """Reset the optimizer to its initial state."""
        self.updates = 0
        self.pool.worker.moments[:] = 0

    def is_due(self, step, times=4):
        """Whether to validate after this step: about `times` times per run, and after the last step."""
        return (step + 1) % max(1, self.total_steps // times) == 0 or step + 1 == self.total_steps

    def validate(self, step, objective, batch):
        """Compute, show and log the loss of a batch. The weights in the batch must sum to more than 0."""
        loss = sum(self.pool.run(compute_loss, self.jobs(objective, batch)))
        self.show(validation=f"(val {loss:.3f})")
        self.log(step=step, validation_loss=loss)

    def show(self, **fields):
        """Change fields of the progress line, which is drawn when the next step begins."""
        self.shown |= fields
        texts = [f"{text}  " for text in self.shown.values() if text]
        self.bar.set_description_str("".join(texts), refresh=False)

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
        notes |= {"tokens": self.tokens, "workers": self.pool.workers}
        notes["wall_seconds"] = round(self._elapsed(), 1)
        notes["versions"] = {"python": platform.python_version(), "numpy": np.__version__}
        write_json(self.folder / "stage.json", {**self.notes, **notes})
        (self.folder / RESUME).unlink(missing_ok=True)

    def _on_signal(self, number, _):
        self.signal = number
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C stops at once
        tqdm.write("stopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    def __enter__(self):
        self.handlers = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
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
        if failure is None and self.signal:  # Ctrl-C during the last step
            raise KeyboardInterrupt(f"interrupted, but {self.folder} is finished")


def share_out(batch, workers, accumulate):
    """A batch -> one list of pieces per worker. The batch is cut between rows, so that the shares of the
    workers have about the same number of tokens.

    Each share is cut in the same way into `accumulate` micro-batches. If one row has more tokens than a
    share, there may be fewer lists than workers.
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
