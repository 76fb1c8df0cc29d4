from bevformer_ros.commands.cli import main


def test_a_row_per_curve_and_a_plot(tmp_path, capsys):
    words = ["--model", "tiny_two_stage", "--repeats", "1", "--cameras", "1", "2", "--heights", "32"]
    plot = tmp_path / "plot.svg"
    assert main(["benchmark-scaling", *words, "--past-frames", "1", "-o", str(plot)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in printed[:-1]] == [
        "cameras",
        "megapixels of a camera's input",
        "past frames warp",
        "past frames reencode",
    ]
    assert printed[0].count(" ms") == 2
    assert plot.read_text().startswith("<?xml")
