"""A process of our own that outlives neither us nor its purpose."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_PATIENCE_S = 15.0


class ChildProcess:
    """Runs in a process group of its own; `with ChildProcess(...)` ends it by SIGINT, and by SIGKILL if it lingers.

    name: what to call it in messages. log: file for its output; None leaves its output on ours.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path | None = None) -> None:
        self.name = name
        self._log = log
        output = None if log is None else log.open("wb")
        try:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        finally:
            if output is not None:
                output.close()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def end(self) -> int:
        """Interrupt it as Ctrl-C does; exit status."""
        self._signal(signal.SIGINT)
        try:
            return self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            return self._process.wait()

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        assert self._log is not None
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _signal(self, number: int) -> None:
        if self.status is None:
            os.killpg(self._process.pid, number)
