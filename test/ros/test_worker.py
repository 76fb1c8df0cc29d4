from __future__ import annotations

import threading

from bevformer_ros.ros.worker import LatestWorker

LONG = 10.0


class Bench:
    """A worker whose work waits for the test's permission."""

    def __init__(self):
        self.done, self.superseded = [], []
        self.begun, self.permitted = threading.Semaphore(0), threading.Semaphore(0)
        self.worker = LatestWorker(self.work, self.superseded.append)

    def work(self, item):
        self.begun.release()
        assert self.permitted.acquire(timeout=LONG)
        self.done.append(item)


def test_no_work_at_all():
    bench = Bench()
    assert bench.worker.stop()
    assert bench.worker.waiting is None
    assert bench.done == bench.superseded == []


def test_the_newest_waiting_item_wins():
    bench = Bench()
    bench.worker.put("a")
    assert bench.begun.acquire(timeout=LONG)
    for item in "bcd":
        bench.worker.put(item)
    bench.permitted.release(2)
    assert bench.begun.acquire(timeout=LONG)
    assert bench.worker.stop()
    assert bench.worker.waiting is None
    assert bench.done == ["a", "d"]
    assert bench.superseded == ["b", "c"]


def test_stop_finishes_the_current_item_and_keeps_the_one_not_begun():
    bench = Bench()
    bench.worker.put("a")
    assert bench.begun.acquire(timeout=LONG)
    bench.worker.put("b")
    assert not bench.worker.stop(timeout_s=0)
    bench.permitted.release()
    assert bench.worker.stop()
    assert bench.worker.waiting == "b"
    assert bench.done == ["a"]
    assert bench.superseded == []
