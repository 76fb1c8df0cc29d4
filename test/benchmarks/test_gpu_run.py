"""The script for the day when there is a GPU: that without one it says so, and that its commands exist as written."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from importlib import import_module

import pytest
import torch
from support import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu_run.sh"
LINES = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
COMMANDS = [
    shlex.split(line.partition("bevformer-ros ")[2], comments=True) for line in LINES if "bevformer-ros " in line
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="would run for an hour")
def test_without_a_gpu_it_says_so(tmp_path):
    result = subprocess.run([SCRIPT, tmp_path / "results"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "torch sees no GPU" in result.stderr


def test_there_are_commands() -> None:
    assert {words[0] for words in COMMANDS} >= {"benchmark", "benchmark-node", "train"}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_commands_take_their_options(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    import_module(f"bevformer_ros.commands.{words[0].replace('-', '_')}").add_arguments(parser)
    values = {"$model": "tiny", "$precision": "bfloat16", "${GPU:-h100}": "h100"}
    parser.parse_args([values.get(word, word) for word in words[1:]])


def test_every_part_has_a_time_limit() -> None:
    parts = [re.match(r"\s*part \S+ (\d+) ", line) for line in LINES if re.match(r"\s*part ", line)]
    assert len(parts) >= 10 and all(parts)
