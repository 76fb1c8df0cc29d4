"""Tests marked own_process run in a process for each file: one that aborts fails there, and the others go on.

The process hands its reports on as they come, line by line; a test without one is what ended it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

MARKER = "own_process"
_REPORTS = "BEVFORMER_ROS_TEST_REPORTS"  # set in such a process: the file for its reports
_TIME_LIMIT_S = 900.0


class OwnProcess:
    """In the process that the user started."""

    def __init__(self) -> None:
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._endings: dict[Path, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        if item.get_closest_marker(MARKER) is None:
            return None
        if item.path not in self._endings:
            self._endings[item.path] = self._run_file(item)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = self._reports[item.nodeid]
        if not any(report.when == "teardown" for report in reports):
            text = f"its process ended before it did:\n{self._endings[item.path]}"
            reports.append(
                pytest.TestReport(item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", text, "call")
            )
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # pytest left standing what this item and the one before it have in common, such as their folder.
        item.session._setupstate.teardown_exact(nextitem)
        return True

    def _run_file(self, item: pytest.Item) -> str:
        """Keep the reports of all its tests that are to run; how the process ended."""
        mates = [other.nodeid for other in item.session.items if other.path == item.path]
        with TemporaryDirectory() as folder:
            lines = Path(folder) / "reports"
            lines.touch()
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", *mates]
            try:
                done = subprocess.run(
                    command,
                    cwd=item.config.rootpath,
                    env={**os.environ, _REPORTS: str(lines)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=_TIME_LIMIT_S,
                )
                ending = f"exit status {done.returncode}\n{done.stdout}"
            except subprocess.TimeoutExpired as error:
                ending = str(error)
            for line in lines.read_text(encoding="utf-8").splitlines():
                data = json.loads(line)
                report: Any = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
                if report.skipped and not hasattr(report, "wasxfail"):
                    report.longrepr = tuple(report.longrepr)  # which JSON made a list
                self._reports[report.nodeid].append(report)
        return ending


class _Reporter:
    """In a process of a file's own."""

    def __init__(self, config: pytest.Config, lines: Path) -> None:
        self._config, self._lines = config, lines

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")


def register(config: pytest.Config) -> None:
    lines = os.environ.get(_REPORTS)
    config.pluginmanager.register(OwnProcess() if lines is None else _Reporter(config, Path(lines)))
