from __future__ import annotations

import sys

import pytest

from bevformer_ros.worker_process import follow_parent


@pytest.mark.parametrize(
    ("error", "is_told"),
    [(ConnectionResetError("by peer"), False), (EOFError("no more"), False), (ValueError("a defect"), True)],
)
def test_only_a_parent_that_hung_up_is_passed_over(error, is_told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr("ctypes.CDLL", lambda _: type("Libc", (), {"prctl": staticmethod(lambda *_: 0)}))
    follow_parent()
    sys.excepthook(type(error), error, None)
    assert (str(error) in capsys.readouterr().err) == is_told
