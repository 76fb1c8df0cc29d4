from bevformer_ros.commands.cli import main


def test_table_has_a_row_per_mode_and_number_of_past_frames(capsys):
    assert main(["benchmark-history", "--model", "tiny", "--past-frames", "1", "2", "--repeats", "1"]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [["warp", "1"], ["warp", "2"], ["reencode", "1"], ["reencode", "2"]]
    assert all(float(cell) > 0 for row in rows[2:] for cell in row[3:])


def test_no_past_frames_are_refused(capsys):
    assert main(["benchmark-history", "--model", "tiny", "--past-frames", "0"]) == 1
    assert "past_frames and repeats must be at least 1" in capsys.readouterr().err
