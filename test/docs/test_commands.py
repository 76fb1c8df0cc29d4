"""Every command that README and docs show runs, or says above it why it is not run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```sh\n(?P<commands>.*?)```", re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(commands, reason why they are not run or an empty string) of a page, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(match["commands"], (match["reason"] or "").strip()) for match in found]


RUN = {
    str(page.relative_to(REPOSITORY)): commands
    for page in PAGES
    if (commands := [text for text, reason in blocks(page) if not reason])
}


def test_there_is_something_to_run():
    assert {"README.md", "docs/start/bags.md", "docs/start/car.md"} <= RUN.keys()


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """What `make demo` leaves in out/drive, smaller."""
    pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")
    pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")
    from bevformer_ros.commands.cli import main

    folder = tmp_path_factory.mktemp("commands") / "drive"
    words = ["--seconds", "2", "--rate", "2", "--size", "400x225", "--seed", "9001"]
    assert main(["simulate", "-o", str(folder), *words]) == 0
    return folder


@pytest.mark.parametrize("page", RUN)
def test_commands_of_a_page(page, drive, tmp_path, monkeypatch, capfd):
    """One after the other in an empty folder with a drive in out/, as a reader would; in this process, because most of
    their time alone goes into the start of Python."""
    from bevformer_ros.commands.cli import main

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "drive").symlink_to(drive)
    monkeypatch.chdir(tmp_path)
    for line in "".join(RUN[page]).splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "bevformer-ros", f"{line}: only our own commands are tried"
            assert main(words[1:]) == 0, f"{line}\n{capfd.readouterr()}"
