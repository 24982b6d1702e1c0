import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tinyllm.objectives import weighted_nll
from tinyllm.parallel import Team, WorkerDied
from tinyllm.training import compute_gradient, deal
from tinyllm.transformer import Config, Transformer

CONFIG = Config(vocab=11, context=6, layers=2, width=8, heads=2)


def twice(replica, job):
    return replica.rank, 2 * job


def write(replica, job):
    replica.model.params.flat[job] = job


def read(replica, job):
    return float(replica.model.params.flat[job])


def fail(replica, job):
    raise ZeroDivisionError("on purpose")


def die(replica, job):
    if replica.rank:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]
)
def test_jobs_are_shared_out_and_answers_come_in_order(method):
    with Team(CONFIG, 3, method) as team:
        assert team.run(twice, list(range(7))) == [(i % 3, 2 * i) for i in range(7)]
        assert team.run(twice, [5]) == [(0, 10)] and team.run(twice, []) == []
        team.run(write, [0, 10, 20])  # each by another process
        assert team.run(read, [10, 20, 0]) == [10, 20, 0]


def test_one_worker_starts_no_process():
    with Team(CONFIG, 1) as team:
        assert team.run(twice, [1, 2]) == [(0, 2), (0, 4)]
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_batch_shared_out_has_the_same_gradient(rows, workers):
    rng = np.random.default_rng(0)
    batch = [(*rng.integers(0, 11, (2, rows, time)), rng.standard_normal((rows, time)))
             for rows, time in ((rows, 6), (2, 3))]  # fmt: skip
    start = Transformer(CONFIG).initialise(rng).params.flat

    def gradient(workers, pieces):
        with Team(CONFIG, workers) as team:
            team.replica.model.params.flat[:] = start
            shares = [
                [(weighted_nll, 5.0, *piece) for piece in share]
                for share in deal(batch, workers, pieces)
            ]
            loss = sum(team.run(compute_gradient, shares))
            return loss, team.sum_gradients(len(shares)).copy()

    loss, whole = gradient(1, 1)
    for pieces in (1, 2):
        other_loss, other = gradient(workers, pieces)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(other, whole, atol=1e-6)
        np.testing.assert_array_equal(other, gradient(workers, pieces)[1])  # and the same bytes again


def test_a_failing_worker_says_why():
    with Team(CONFIG, 2) as team, pytest.raises(WorkerDied, match="ZeroDivisionError: on purpose"):
        team.run(fail_elsewhere, [0, 1])


def fail_elsewhere(replica, job):
    return fail(replica, job) if replica.rank else None


def test_a_killed_worker_ends_the_run_at_once():
    with Team(CONFIG, 3) as team:
        began = time.monotonic()
        with pytest.raises(WorkerDied, match="exit code -9"):
            team.run(die, [0, 1, 2])
        assert time.monotonic() - began < 5
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_nothing_stays_behind(kill):
    """The first process is killed in the middle of its work: workers end, and no shared memory is left."""
    script = textwrap.dedent("""
        import signal, time, tinyllm
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have it ignored
        from tinyllm.parallel import Team
        from tinyllm.transformer import Config
        team = Team(Config(vocab=11, context=6, layers=2, width=8, heads=2), 3)
        print(*[process.pid for process in team._processes], flush=True)
        time.sleep(60)
    """)
    before = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.send_signal(kill)
    process.wait(10)
    for _ in range(100):
        if not any(
            os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
            for pid in pids
        ):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker outlived the run")
    assert set(os.listdir("/dev/shm")) <= before
