"""The world's benchmark: a table for people, JSON for machines."""

import json

from bevformer_ros.commands.cli import main

SMALL = ["benchmark-world", "--size", "80x45", "--frames", "1"]


def test_no_frames(capsys):
    assert main(["benchmark-world", "--frames", "0"]) == 1
    assert "workers and frames must be at least 1" in capsys.readouterr().err


def test_json_report(capsys):
    assert main([*SMALL, "--workers", "2", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["width"], report["height"], report["workers"], report["images"]) == (80, 45, 2, 12)
    assert report["images_per_second"] > 0


def test_table(capsys):
    assert main(SMALL) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == row.count("|")
    assert "80x45" in row
