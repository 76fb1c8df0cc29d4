"""The stand-in finds what it is for: work on one stream that does not wait for the other's, and memory in use."""

from __future__ import annotations

import pytest
import torch
from pretended_gpu import PretendedGpu, RaceError

GPU = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    with PretendedGpu(monkeypatch) as pretended:
        yield pretended


def made_elsewhere():
    """A tensor of another stream, and its event."""
    with torch.cuda.stream(torch.cuda.Stream(GPU)):
        values = torch.zeros(3, device=GPU) + 1
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(GPU))
    return values, event


def test_one_stream_is_in_order(gpu):
    assert (torch.ones(3, device=GPU) + 1).cpu().tolist() == [2, 2, 2]


def test_reading_what_another_stream_writes(gpu):
    values, event = made_elsewhere()
    with pytest.raises(RaceError, match="reads what stream 0 may still work with"):
        values * 2
    torch.cuda.current_stream(GPU).wait_event(event)
    assert (values * 2).cpu().tolist() == [2, 2, 2]


def test_writing_what_another_stream_reads(gpu):
    values, event = made_elsewhere()
    event.synchronize()
    values * 2  # on the default stream
    with torch.cuda.stream(torch.cuda.Stream(GPU)), pytest.raises(RaceError, match="writes what default may"):
        values.fill_(0)


def test_pinned_memory_that_is_being_copied(gpu):
    pinned = torch.zeros(3, pin_memory=True)
    event = torch.cuda.Event()
    pinned.to(GPU, non_blocking=True)
    event.record(torch.cuda.current_stream(GPU))
    with pytest.raises(RaceError, match="writes what default may"):
        pinned.copy_(torch.ones(3))
    event.synchronize()
    pinned.copy_(torch.ones(3))


def test_reading_on_the_host_before_the_copy_is_done(gpu):
    pinned = torch.zeros(3, pin_memory=True)
    pinned.copy_(torch.ones(3, device=GPU), non_blocking=True)
    with pytest.raises(RaceError, match="the host reads what default may"):
        pinned.numpy()
    torch.cuda.current_stream(GPU).synchronize()
    assert pinned.numpy().tolist() == [1, 1, 1]


def test_events_pass_when_the_host_has_waited_for_them(gpu):
    _, event = made_elsewhere()
    assert not event.query()
    event.synchronize()
    assert event.query()
