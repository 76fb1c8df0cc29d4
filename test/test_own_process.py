"""A file whose second test aborts, run as the suite runs files that train."""

from __future__ import annotations

import subprocess
import sys

from support import REPOSITORY

CONFTEST = """
from own_process import register

def pytest_configure(config):
    config.addinivalue_line("markers", "own_process")
    register(config)
"""
DEADLY = """
import os
import pytest

pytestmark = pytest.mark.own_process

def test_before(): pass
def test_wrong(): assert 1 == 2
def test_skipped(): pytest.skip("not here")
def test_deadly(): os.abort()
def test_after(): pass
"""


def test_an_abort_fails_one_file_and_the_rest_goes_on(tmp_path):
    good = "def test_good(): pass"
    files = {"conftest": CONFTEST, "a/test_a_good": good, "a/test_b_deadly": DEADLY, "b/test_c_good": good}
    for name, text in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {REPOSITORY / 'test'}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    results = [
        line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "SKIP"))
    ]
    assert sorted(results) == [
        "FAILED a/test_b_deadly.py::test_after",
        "FAILED a/test_b_deadly.py::test_deadly",
        "FAILED a/test_b_deadly.py::test_wrong",
        "PASSED a/test_a_good.py::test_good",
        "PASSED a/test_b_deadly.py::test_before",
        "PASSED b/test_c_good.py::test_good",
        "SKIPPED [1] a/test_b_deadly.py:9: not here",
    ]
    assert "assert 1 == 2" in done.stdout
    assert "its process ended before it did" in done.stdout
    assert "exit status -6" in done.stdout
