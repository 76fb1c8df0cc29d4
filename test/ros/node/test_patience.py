from __future__ import annotations

import threading

import pytest

from bevformer_ros.ros.node.patience import Patience


class Clock:
    """Each look at it is one step later."""

    def __init__(self, step):
        self.now, self.step = 0, step

    def __call__(self):
        self.now += self.step
        return self.now


def failing(times, error=LookupError):
    """An attempt that fails this many times and then gives how often it was tried."""
    tries = []

    def attempt():
        tries.append(None)
        if len(tries) <= times:
            raise error("not yet")
        return len(tries)

    return attempt


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_waits_until_it_is_there(failures):
    assert Patience(10, Clock(step=1)).retry(failing(failures), LookupError) == failures + 1


def test_lets_the_error_pass_at_the_limit():
    clock = Clock(step=1)
    with pytest.raises(LookupError):
        Patience(3, clock).retry(failing(100), LookupError)
    assert clock.now == 1 + 3


def test_other_errors_pass_at_once():
    clock = Clock(step=1)
    with pytest.raises(KeyError):
        Patience(1000, clock).retry(failing(5, KeyError), TypeError)
    assert clock.now == 1


@pytest.mark.parametrize("step", [-1, 0])
def test_ends_when_the_clock_goes_back_or_it_is_stopped(step):
    patience = Patience(1000, Clock(step), stopped=threading.Event())
    if step == 0:
        patience.stopped.set()
    with pytest.raises(LookupError):
        patience.retry(failing(10**9), LookupError)


def test_ends_although_simulated_time_stands_still():
    with pytest.raises(LookupError):
        Patience(1, Clock(step=0)).retry(failing(10**9), LookupError)
