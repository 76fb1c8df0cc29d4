"""One thread of the process computes with all cores, the others alone, and teams end with their threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from bevformer_ros.inference.compute_threads import compute_with, in_passing_thread

THREADS = 3
TASKS = Path("/proc/self/task")


def threads_of_process() -> set[Path]:
    return set(TASKS.iterdir())


def threads_begun_by_computing() -> set[Path]:
    if not TASKS.is_dir():
        pytest.skip("threads are counted as Linux shows them")
    before = threads_of_process()
    torch.ones(1 << 20).sqrt()
    return threads_of_process() - before


def test_a_thread_that_computes_alone_begins_no_others_whatever_other_threads_have_set() -> None:
    with ThreadPoolExecutor(1) as alone, ThreadPoolExecutor(1) as shared:
        alone.submit(compute_with, 1).result()
        shared.submit(compute_with, THREADS).result()
        assert not alone.submit(threads_begun_by_computing).result()
        assert len(shared.submit(threads_begun_by_computing).result()) == THREADS - 1


def test_a_team_ends_with_its_thread() -> None:
    def work() -> set[Path]:
        compute_with(THREADS)
        return threads_begun_by_computing()

    team = in_passing_thread(work)
    assert len(team) == THREADS - 1
    deadline = time.monotonic() + 10.0
    while team & threads_of_process() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not team & threads_of_process()


def test_the_number_of_the_caller_holds_there() -> None:
    assert in_passing_thread(torch.get_num_threads) == torch.get_num_threads()


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_passing_thread(lambda: 1 // 0)
