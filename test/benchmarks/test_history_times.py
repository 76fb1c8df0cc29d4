from argparse import ArgumentParser

import pytest

from bevformer_ros.benchmarks import history_times


def arguments(*words):
    parser = ArgumentParser()
    history_times.add_arguments(parser)
    return parser.parse_args(words)


def test_table_has_a_row_per_mode_and_slots(capsys):
    words = ("--model", "tiny", "--slots", "1", "2", "--repeats", "1")
    assert history_times.run(arguments(*words)) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [["warp", "1"], ["warp", "2"], ["reencode", "1"], ["reencode", "2"]]
    assert all(float(cell) > 0 for row in rows[2:] for cell in row[3:])


def test_no_slots_are_refused():
    with pytest.raises(ValueError, match="--slots and --repeats must be at least 1"):
        history_times.run(arguments("--model", "tiny", "--slots", "0"))
