from __future__ import annotations

import threading

from support import wait_until

from bevformer_ros.ros.node.worker import PipelinedWorker

LONG = 10.0


class Bench:
    """A worker whose preparation and work wait for the test's permission."""

    def __init__(self, prepare_at_once=True):
        self.done, self.superseded = [], []
        self.preparing, self.may_prepare = threading.Semaphore(0), threading.Semaphore(1000 * prepare_at_once)
        self.begun, self.permitted = threading.Semaphore(0), threading.Semaphore(0)
        self.worker = PipelinedWorker(self.prepare, self.work, self.superseded.append)
        self.worker.start()

    def prepare(self, item):
        self.preparing.release()
        assert self.may_prepare.acquire(timeout=LONG)
        return None if item == "bad" else item.upper()

    def work(self, item):
        self.begun.release()
        assert self.permitted.acquire(timeout=LONG)
        self.done.append(item)

    def put(self, item):
        """Return once it is being prepared."""
        self.worker.put(item)
        assert self.preparing.acquire(timeout=LONG)


def test_no_work_at_all():
    bench = Bench()
    assert bench.worker.stop()
    assert bench.worker.not_begun == bench.done == bench.superseded == []
    assert PipelinedWorker(bench.prepare, bench.work, bench.superseded.append).stop()  # not even started


def test_one_is_prepared_while_one_is_worked_on_and_the_newest_waits():
    bench = Bench()
    bench.put("a")
    assert bench.begun.acquire(timeout=LONG)
    bench.put("b")
    wait_until(lambda: bench.worker._prepared == "B", "b to be prepared")
    for item in "cde":
        bench.worker.put(item)
    assert bench.superseded == ["c", "d"]
    assert not bench.preparing.acquire(blocking=False)  # not before b has begun
    bench.permitted.release(3)
    for _ in range(2):
        assert bench.begun.acquire(timeout=LONG)
    assert bench.worker.stop()
    assert bench.worker.not_begun == []
    assert bench.done == ["A", "B", "E"]


def test_what_preparation_drops_is_gone():
    bench = Bench()
    bench.permitted.release(10)
    for item in ("bad", "a"):
        bench.put(item)
    assert bench.begun.acquire(timeout=LONG)
    assert bench.worker.stop()
    assert bench.done == ["A"]
    assert bench.worker.not_begun == bench.superseded == []


def test_stop_finishes_the_current_work_and_keeps_what_was_not_begun():
    bench = Bench()
    bench.put("a")
    assert bench.begun.acquire(timeout=LONG)
    bench.put("b")
    wait_until(lambda: bench.worker._prepared == "B", "b to be prepared")
    bench.worker.put("c")
    assert not bench.worker.stop(timeout_s=0)
    bench.permitted.release()
    assert bench.worker.stop()
    assert bench.worker.not_begun == ["b", "c"]
    assert bench.done == ["A"]
    assert bench.superseded == []


def test_stop_waits_for_a_preparation():
    bench = Bench(prepare_at_once=False)
    bench.put("a")
    stopping = threading.Thread(target=bench.worker.stop)
    stopping.start()
    bench.may_prepare.release()
    stopping.join(LONG)
    assert not stopping.is_alive()
    assert bench.worker.not_begun in (["a"], [])  # [] where the work had begun before it was told to stop
    bench.permitted.release()
