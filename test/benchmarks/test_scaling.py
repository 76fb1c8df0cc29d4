import pytest

from bevformer_ros.benchmarks.scaling import modes_of
from bevformer_ros.commands.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file


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


@pytest.mark.parametrize(("model", "modes"), [("tiny_two_stage", ("warp", "reencode")), ("demo", ("warp",))])
def test_modes_that_a_model_can_have(model, modes):
    assert modes_of(load_yaml(ModelConfig, config_file("models", model))) == modes
