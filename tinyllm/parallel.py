"""Use every core of the machine: worker processes that share one parameter buffer.

    with WorkerPool(model, workers) as pool:          # this process is worker 0, the only one if workers=1
        pool.model                                    # the shared model, a copy of `model`
        log_probs = pool.map(token_log_probs, ids, targets, size=pool.rows_at_once(T))

BLAS threads speed up only the matrix products; a process per core speeds up everything in a step. But sending
a model through a pipe for every batch would cost more than it saves. So parameters, optimizer state and one
gradient buffer per worker are in shared memory. Jobs and results go through pipes.

The shared memory has no name (multiprocessing's RawArray maps an unlinked file), so nothing is left behind,
whichever process is killed.

To go beyond one machine, give each machine its rows of the batch, and the `total` of the whole batch (see
objectives.py). Turn the sums of gradients (`sum_gradients`) and of losses into all-reduces. Each machine then
updates its own copy of the parameters, and one machine saves them.
"""

import atexit
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np

from tinyllm.errors import TinyllmError
from tinyllm.transformer import Parameters, Transformer

ROWS = 32  # rows computed at once; fewer if they have too many logits
LOGITS = 2**25  # logits computed at once: 128 MB in float32, and a loss needs several arrays of that size


def available_cores():
    """The number of cores that this process may use; a container's CPU quota may lower it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroups, or the quota is "max"
        return cores


class Worker:
    """What one process works on: the shared model and moments, and its own gradient buffer."""

    def __init__(self, config, memory, workers, rank, last_layers):
        size, begin, self.rank = config.size(), config.begin(last_layers), rank
        flat = np.frombuffer(memory, np.float32)
        self.model = Transformer(config, Parameters(config, flat[:size]))
        rows = flat[size:].reshape(2 + workers, size - begin)
        self.moments = rows[:2]  # two vectors for the optimizer
        self.gradients = rows[2:]  # one vector per worker
        self.gradient = Parameters(config, rows[2 + rank])
        self.model.frozen = config.layers - len(self.gradient.blocks)


class WorkerPool:
    """`workers` processes, this one included. Use the pool as a context manager, or call `close`.

    last_layers: how many of the last layers are trained (0: all layers and the embedding; None: nothing).
    Only trained layers have gradients, moments and a cache for the backward pass (megabytes per token in a
    real model).
    """

    def __init__(self, model, workers=1, start_method=None, last_layers=0):
        context, config = multiprocessing.get_context(start_method), model.config
        size = config.size() + (2 + workers) * (config.size() - config.begin(last_layers))
        memory = np.zeros(size, np.float32) if workers == 1 else context.RawArray("f", size)
        self.workers = workers
        self.worker = Worker(config, memory, workers, 0, last_layers)
        self.model = self.worker.model
        self.model.params.flat[:] = model.params.flat
        self._pipes, self._processes = [], []
        for rank in range(1, workers):
            parent_end, child_end = context.Pipe()
            arguments = child_end, config, memory, workers, rank, last_layers
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            child_end.close()
            self._pipes.append(parent_end)
            self._processes.append(process)
        atexit.register(self.close)  # runs before multiprocessing's exit handler, which waits for the workers

    def map(self, function, *columns, size):
        """Call function(model, *columns) on chunks of `size` rows -> the results, joined in row order.

        Each column is a sequence with one item per row. The result is a list or an array with one item per
        row, or a tuple of such lists and arrays.
        """
        starts = range(0, len(columns[0]), size)
        chunks = [(function, [column[at : at + size] for column in columns]) for at in starts]
        results = [None] * len(chunks)
        jobs = [chunks[rank :: self.workers] for rank in range(self.workers)]
        for rank, part in enumerate(self.run(_apply, jobs)):
            results[rank :: self.workers] = part
        return _joined(results)

    def rows_at_once(self, length):
        """The `size` to give to `map` for rows of `length` tokens, if all their logits are computed."""
        return max(1, min(ROWS, LOGITS // (length * self.model.config.vocab)))

    def run(self, function, jobs):
        """Call function(worker, job), job i on worker i -> list of results. Some workers may have no job.

        `function` must be importable from a module, or a functools.partial of such a function. Jobs and
        results are pickled. Raises TinyllmError if a worker dies or its job fails.
        """
        try:
            for rank in range(1, len(jobs)):
                self._pipes[rank - 1].send((function, jobs[rank]))
            answers = [_attempt(function, self.worker, job) for job in jobs[:1]]
            for rank in range(1, len(jobs)):
                answers.append(self._pipes[rank - 1].recv())
        except (EOFError, OSError):  # the pipe of a dead worker is broken
            process = self._processes[rank - 1]
            process.join(1)
            raise TinyllmError(
                f"worker {rank} (process {process.pid}) ended with exit code {process.exitcode}. RESUME=1 "
                "continues from the last save, if there is one. If memory ran out, start a new run "
                "(RUN=another) with fewer WORKERS or a smaller SIZE"
            ) from None
        for rank, (failure, _) in enumerate(answers):
            if failure:
                raise TinyllmError(f"worker {rank} failed: {failure}")
        return [result for _, result in answers]

    def sum_gradients(self, count):
        """Add up the first `count` gradient buffers in worker order -> the sum, in the buffer of worker 0."""
        gradient, *others = self.worker.gradients[:count]
        for other in others:
            gradient += other
        return gradient

    def close(self):
        """Kill the workers. Nothing is lost, because they hold no state of their own. The shared memory is
        freed when no process uses it any more."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        atexit.unregister(self.close)  # comes last, so an interrupted `close` runs again at exit

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def map_by_length(pool, function, rows, *columns, size):
    """pool.map for sequences of different lengths -> a list, in the order of `rows`. Sequences of similar
    length share a chunk, which saves padding and waiting. All `columns` are arrays."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    sorted_columns = [column[order] for column in columns]
    results = pool.map(function, [rows[i] for i in order], *sorted_columns, size=size)
    return [results[i] for i in np.argsort(order)]


def _attempt(function, worker, job):
    """-> (error message or None, result)"""
    try:
        return None, function(worker, job)
    except Exception as error:
        return f"{type(error).__name__}: {error}", None


def _apply(worker, chunks):
    return [function(worker.model, *columns) for function, columns in chunks]


def _joined(results):
    if not results:
        return []
    if isinstance(results[0], tuple):
        return tuple(map(_joined, zip(*results)))
    if isinstance(results[0], np.ndarray):
        return np.concatenate(results)
    return [row for part in results for row in part]


def _serve(pipe, *worker):
    """A worker's loop: receive jobs and send results, until the main process ends or kills the worker."""
    for name in (signal.SIGINT, signal.SIGTERM):  # the main process decides when to stop
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = Worker(*worker)
    while True:
        function, job = pipe.recv()
        pipe.send(_attempt(function, worker, job))


def _end_with_parent():
    """Exit when the main process ends. This runs in a thread, because the worker may be busy or blocked."""
    multiprocessing.parent_process().join()
    os._exit(0)
