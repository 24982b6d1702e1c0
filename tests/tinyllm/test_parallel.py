"""parallel: the number of workers changes only the speed, and the failure of any worker is reported.

What could go wrong: results are returned for the wrong rows or jobs, or worker processes outlive the program.
"""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rngs

from tinyllm.errors import TinyllmError
from tinyllm.objectives import weighted_nll
from tinyllm.parallel import WorkerPool, map_by_length
from tinyllm.training import compute_gradient, share_out
from tinyllm.transformer import Config, Transformer

CONFIG = Config(vocab=11, context=6, layers=2, width=8, heads=2)
MODEL = Transformer(CONFIG).initialise(np.random.default_rng(0))


@pytest.fixture(scope="module")
def pools():
    """Pools of 1, 2 and 3 workers, shared by the tests that do not change the model."""
    pools = {workers: WorkerPool(MODEL, workers) for workers in (1, 2, 3)}
    yield pools
    for pool in pools.values():
        pool.close()


# ---- functions that the workers run. They are pickled, so they must not be defined inside other functions.


def rank_of(worker):
    """The rank of a worker: the index of its gradient buffer."""
    return next(i for i, row in enumerate(worker.gradients) if np.shares_memory(row, worker.gradient.flat))


def rank_and_double(worker, job):
    return rank_of(worker), 2 * job


def process_id(worker, job):
    return os.getpid()


def write_parameter(worker, index):
    worker.model.params.flat[index] = index


def read_parameter(worker, index):
    return float(worker.model.params.flat[index])


def divide(worker, job):
    return 1 / job


def kill_own_process(worker, job):
    if rank_of(worker):
        os.kill(os.getpid(), signal.SIGKILL)


def pair(model, numbers, texts):
    assert len(numbers) == len(texts)
    return [(n, text) for n, text in zip(numbers, texts)]


def pair_sums_of_sorted_rows(model, rows, numbers):
    assert [*map(len, rows)] == sorted(map(len, rows))
    return [(sum(row), number) for row, number in zip(rows, numbers)]


def sum_logits(model, ids):
    return model.logits(ids).sum(axis=(1, 2))


def pair_and_sum(model, ids, texts):
    return [f"{text}{row[0]}" for row, text in zip(ids, texts)], sum_logits(model, ids), ids


def chunk_sizes(model, rows):
    return [len(rows)] * len(rows)


# ---- map


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), rngs)
def test_map_joins_the_results_in_the_order_of_the_rows(pools, workers, rows, size, rng):
    """Results may be lists, arrays, or tuples of lists and arrays."""
    pool, ids = pools[workers], rng.integers(0, 11, (rows, 4))
    texts = [str(number) for number in rng.random(rows)]
    assert pool.map(pair, ids[:, 0].tolist(), texts, size=size) == pair(MODEL, ids[:, 0].tolist(), texts)
    sums = pool.map(sum_logits, ids, size=size)
    assert isinstance(sums, np.ndarray)
    np.testing.assert_allclose(sums, sum_logits(MODEL, ids), rtol=1e-4)
    mapped, expected = (pool.map(pair_and_sum, ids, texts, size=size), pair_and_sum(MODEL, ids, texts))
    assert type(mapped) is tuple and mapped[0] == expected[0]
    np.testing.assert_allclose(mapped[1], expected[1], rtol=1e-4)
    np.testing.assert_array_equal(mapped[2], ids)


@given(st.integers(1, 3), st.integers(0, 12), st.integers(1, 12))
def test_map_calls_the_function_with_chunks_of_the_given_size(pools, workers, rows, size):
    sizes = pools[workers].map(chunk_sizes, list(range(rows)), size=size)
    whole, rest = divmod(rows, size)
    assert sizes == [size] * (size * whole) + [rest] * rest


@given(
    st.sampled_from([1, 2]),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=12),
    st.integers(1, 5),
)
@settings(max_examples=30)
def test_map_by_length_sorts_the_sequences_but_returns_the_results_in_the_original_order(
    pools, workers, rows, size
):
    numbers = np.arange(len(rows))
    results = map_by_length(pools[workers], pair_sums_of_sorted_rows, rows, numbers, size=size)
    assert results == [(sum(row), number) for row, number in zip(rows, numbers)]


@pytest.mark.parametrize("vocab, length, rows", [(1536, 352, 32), (49_152, 100, 6), (49_152, 2048, 1)])
def test_fewer_rows_are_computed_at_a_time_if_they_have_many_logits(vocab, length, rows):
    pool = WorkerPool(Transformer(Config(vocab, context=8, layers=1, width=2, heads=1)))
    assert pool.rows_at_once(length) == rows


# ---- run


@pytest.mark.parametrize(
    "method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]
)
def test_each_worker_does_its_own_job_and_all_workers_share_the_parameters(method):
    with WorkerPool(MODEL, 3, method) as pool:
        assert pool.run(rank_and_double, [5, 6, 7]) == [(0, 10), (1, 12), (2, 14)]
        assert pool.run(rank_and_double, [5]) == [(0, 10)] and pool.run(rank_and_double, []) == []
        assert len({os.getpid(), *pool.run(process_id, [0, 0, 0])}) == 3
        pool.run(write_parameter, [0, 10, 20])  # each worker writes one parameter
        assert pool.run(read_parameter, [10, 20, 0]) == [10, 20, 0]


def test_the_pool_starts_with_a_copy_of_the_model():
    before = MODEL.params.flat.copy()
    with WorkerPool(MODEL, 2) as pool:
        assert pool.run(read_parameter, [3, 3]) == [before[3]] * 2
        pool.run(write_parameter, [7])
    np.testing.assert_array_equal(MODEL.params.flat, before)


@pytest.mark.parametrize("last_layers, has_cache", [(0, [1, 1, 1]), (2, [0, 1, 1]), (None, [0, 0, 0])])
def test_only_trained_layers_keep_a_cache_for_the_backward_pass(last_layers, has_cache):
    model = Transformer(Config(vocab=9, context=8, layers=3, width=4, heads=1))
    with WorkerPool(model, last_layers=last_layers) as pool:
        caches = pool.model.forward(np.zeros((1, 2), int))[1][5]
    assert [cache is not None for cache in caches] == has_cache


def test_a_pool_of_one_worker_starts_no_process():
    before = multiprocessing.active_children()
    with WorkerPool(MODEL, 1) as pool:
        assert pool.run(process_id, [0]) == [os.getpid()]
        assert multiprocessing.active_children() == before


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sharing_a_batch_among_workers_does_not_change_its_gradient(pools, rows, workers):
    rng = np.random.default_rng(0)
    batch = [
        {
            "ids": rng.integers(0, 11, (count, time)),
            "targets": rng.integers(0, 11, (count, time)),
            "weights": rng.standard_normal((count, time)),
        }
        for count, time in ((rows, 6), (2, 3))
    ]

    def gradient(workers, accumulate):
        pool = pools[workers]
        for buffer in pool.worker.gradients:
            buffer[:] = np.nan  # as if an earlier step had left values in the buffer
        shares = share_out(batch, workers, accumulate)
        loss = sum(pool.run(compute_gradient, [(weighted_nll, 5.0, pieces) for pieces in shares]))
        return loss, pool.sum_gradients(len(shares)).copy()

    expected_loss, expected = gradient(1, 1)
    for accumulate in (1, 2):
        loss, shared = gradient(workers, accumulate)
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        np.testing.assert_allclose(shared, expected, atol=1e-6)
        np.testing.assert_array_equal(shared, gradient(workers, accumulate)[1])  # a second run is identical


# ---- what can go wrong


@pytest.mark.parametrize("jobs", [[1, 0], [1, 1, 0], [1, 0, 0]])
def test_an_exception_in_a_worker_is_reported_with_the_number_of_the_worker(jobs):
    reason = f"worker {jobs.index(0)} failed: ZeroDivisionError: division"
    with WorkerPool(MODEL, 3) as pool, pytest.raises(TinyllmError, match=reason):
        pool.run(divide, jobs)
    assert not set(multiprocessing.active_children()) & set(pool._processes)


@pytest.mark.parametrize("jobs", [[1, 0, 4], [0, 1, 4]])
def test_after_a_failed_job_the_pool_returns_the_results_of_the_next_jobs(jobs):
    with WorkerPool(MODEL, 3) as pool:
        with pytest.raises(TinyllmError):
            pool.run(divide, jobs)
        assert pool.run(rank_and_double, [1, 2, 3]) == [(0, 2), (1, 4), (2, 6)]


def test_a_killed_worker_ends_the_run_at_once():
    with WorkerPool(MODEL, 3) as pool:
        start = time.monotonic()
        with pytest.raises(TinyllmError, match=r"worker 1 \(process \d+\) ended with exit code -9.*RESUME=1"):
            pool.run(kill_own_process, [0, 1, 2])
        with pytest.raises(TinyllmError, match="exit code -9"):  # later jobs fail as well
            pool.run(rank_and_double, [0, 1])
        assert time.monotonic() - start < 5
    assert not set(multiprocessing.active_children()) & set(pool._processes)


def test_close_kills_all_workers_before_it_waits_for_any_of_them():
    """Otherwise, after Ctrl-C during `close`, the program would wait forever for workers still running."""
    pool, calls = WorkerPool(MODEL, 3), []
    for process in pool._processes:
        kill, join = process.kill, process.join
        process.kill = lambda kill=kill: (calls.append("kill"), kill())
        process.join = lambda join=join: (calls.append("join"), join())
    pool.close()
    assert calls == ["kill", "kill", "join", "join"]


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_ignores_signals_because_the_main_process_decides_when_to_stop(number):
    with WorkerPool(MODEL, 2) as pool:
        pid = pool.run(process_id, [0, 0])[1]
        os.kill(pid, number)
        assert pool.run(process_id, [0, 0])[1] == pid


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
@pytest.mark.parametrize("work", ["", "for pipe in pool._pipes: pipe.send((send_megabytes, 9))"])
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_program_leaves_no_worker_and_no_shared_memory(kill, work):
    """The workers may be idle, or blocked while sending results that nobody receives."""
    script = textwrap.dedent(f"""
        import signal, time, tinyllm
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore SIGINT
        from tinyllm.parallel import WorkerPool
        from tinyllm.transformer import Config, Transformer
        def send_megabytes(worker, job):
            return bytes(job * 10**6)
        pool = WorkerPool(Transformer(Config(vocab=11, context=6, layers=2, width=8, heads=2)), 3)
        {work}
        time.sleep(0.5)
        print(*[process.pid for process in pool._processes], flush=True)
        time.sleep(60)
    """)
    before = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.send_signal(kill)
    process.communicate(timeout=10)

    def is_running(pid):
        try:
            return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
        except (FileNotFoundError, ProcessLookupError):
            return False

    for _ in range(100):
        if not any(map(is_running, pids)):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker outlived the program")
    assert set(os.listdir("/dev/shm")) <= before
