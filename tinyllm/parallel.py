"""Every core of the machine: worker processes that share one parameter buffer.

    team = Team(config, workers)              # this process is worker 0; with 1 worker it stays alone
    team = Team.of(model, workers)            # the same, its shared model beginning as this one
    team.replica.model                        # the shared model
    team.run(function, jobs) -> results       # function(replica, job), spread over the workers, in order

Parameters, optimizer state and one gradient buffer per worker lie in memory that all processes see, so
only jobs and small results travel through pipes. The memory has no name (multiprocessing's RawArray
maps an unlinked file), so whatever kills whom, nothing stays behind. To go beyond one machine, replace
`sum_gradients` by an all-reduce of the same vectors.

Processes, not BLAS threads: everything in a step then runs on every core, not only the matrix products.
"""

import atexit
import multiprocessing
import os
import signal
from multiprocessing.connection import wait

import numpy as np

from tinyllm.transformer import Parameters, Transformer


class WorkerDied(Exception):
    """A worker process ended or failed: the run cannot go on. The message says which and how."""


class Replica:
    """What every worker sees: the same model and moments, and all gradient buffers, its own at `rank`."""

    def __init__(self, config, rows, rank):
        self.rank = rank
        self.model = Transformer(config, Parameters(config, rows[0]))
        self.moments = rows[1:3]                                    # two vectors for the optimizer
        self.gradients = [Parameters(config, row) for row in rows[3:]]
        self.gradient = self.gradients[rank]


class Team:
    """`workers` processes, this one included. Use as a context manager, or call `close`."""

    def __init__(self, config, workers=1, start_method=None):
        context = multiprocessing.get_context(start_method)
        size, count = config.size(), 3 + workers
        memory = context.RawArray("f", count * size) if workers > 1 else np.zeros(count * size, np.float32)
        self.workers = workers
        self.replica = Replica(config, _rows(memory, size), 0)
        self._pipes, self._processes = [], []
        for rank in range(1, workers):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, memory, config, rank), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        atexit.register(self.close)        # before multiprocessing's own end, which waits for workers

    @classmethod
    def of(cls, model, workers=1):
        team = cls(model.config, workers)
        team.replica.model.params.flat[:] = model.params.flat
        return team

    def run(self, function, jobs):
        """function(replica, job) for each job -> results in the order of the jobs.

        `function` is found by its name in the worker, so it has to stand at the top of a module; jobs
        and results are pickled. Worker w takes every jobs[w::workers]. Raises WorkerDied.
        """
        busy = [rank for rank in range(1, self.workers) if jobs[rank::self.workers]]
        for rank in busy:
            try:
                self._pipes[rank - 1].send((function, jobs[rank::self.workers]))
            except OSError:
                raise self._death(rank) from None
        results = [None] * len(jobs)
        results[::self.workers] = [function(self.replica, job) for job in jobs[::self.workers]]
        for rank in busy:
            results[rank::self.workers] = self._receive(rank)
        return results

    def _receive(self, rank):
        pipe, process = self._pipes[rank - 1], self._processes[rank - 1]
        wait([pipe, process.sentinel])
        try:
            failure, results = pipe.recv() if pipe.poll() else (None, None)
        except (EOFError, OSError):
            failure, results = None, None
        if failure:
            raise WorkerDied(f"worker {rank} failed: {failure}")
        if results is None:
            raise self._death(rank)
        return results

    def _death(self, rank):
        process = self._processes[rank - 1]
        process.join(1)
        return WorkerDied(f"worker {rank} (process {process.pid}) ended with exit code {process.exitcode}. "
                          "If the machine ran out of memory, use fewer WORKERS or a smaller SIZE; "
                          "what was saved last is whole, RESUME=1 goes on from there")

    def sum_gradients(self, count):
        """The sum of the first `count` gradient buffers, in worker order, left in this process's own."""
        total = self.replica.gradient.flat
        for other in self.replica.gradients[1:count]:
            total += other.flat
        return total

    def close(self):
        """End the workers; the shared memory goes with the last process that uses it."""
        atexit.unregister(self.close)
        for pipe in self._pipes:
            try:
                pipe.send(None)      # said, not only closed: a forked sibling may hold the other end open
            except OSError:
                pass
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _rows(memory, size):
    return np.frombuffer(memory, np.float32).reshape(-1, size)


def _serve(pipe, memory, config, rank):
    """The life of a worker: jobs come, results go, until the pipe closes or the first process is gone."""
    for name in (signal.SIGINT, signal.SIGTERM):                   # the first process decides when to end
        signal.signal(name, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel
    replica = Replica(config, _rows(memory, config.size()), rank)
    while True:
        wait([pipe, parent])
        try:
            work = pipe.recv() if pipe.poll() else None
            if work is None:
                os._exit(0)
            function, jobs = work
            try:
                answer = None, [function(replica, job) for job in jobs]
            except Exception as error:
                answer = f"{type(error).__name__}: {error}", None
            pipe.send(answer)
        except (EOFError, OSError):
            os._exit(0)
