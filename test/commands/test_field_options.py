"""Options out of dataclasses."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from bevformer_ros.commands.field_options import add_field, add_tree, tree_values
from bevformer_ros.config import load_yaml
from bevformer_ros.training.config import TrainingConfig


@dataclass(frozen=True)
class Nothing:
    """No fields."""


@dataclass(frozen=True)
class Inner:
    """A part."""

    share: float = 0.5
    """Of all, 100 % being 1."""


@dataclass(frozen=True)
class Outer:
    """A whole."""

    count: int
    """How many
    there are."""
    quiet: bool = False
    """Say nothing."""
    inner: Inner | None = Inner()
    """What lies in it."""


def parsed(kind, *words):
    parser = argparse.ArgumentParser()
    add_tree(parser, kind)
    return tree_values(parser.parse_args(words), kind)


def test_no_fields():
    assert parsed(Nothing) == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--count", "3"], {"count": 3}),
        (["--quiet", "true", "--inner.share", "1e-1"], {"quiet": True, "inner.share": "1e-1"}),
        (["--inner", "null"], {"inner": None}),
        (["--inner", "{share: 0.1}"], {"inner": {"share": 0.1}}),
    ],
)
def test_what_is_given_and_nothing_else(words, expected):
    assert parsed(Outer, *words) == expected


def test_given_values_stand_in_the_place_of_the_files(tmp_path):
    path = tmp_path / "outer.yaml"
    path.write_text("count: 1\ninner: null\n")
    assert load_yaml(Outer, path, parsed(Outer, "--count", "3", "--inner.share", "1e-1")) == Outer(3, inner=Inner(0.1))
    with pytest.raises(ValueError, match=r"outer.yaml: Outer.count: expected int, got 'many'"):
        load_yaml(Outer, path, parsed(Outer, "--count", "many"))


def test_help_holds_docstrings_and_defaults(capsys):
    with pytest.raises(SystemExit):
        parsed(Outer, "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "--count INT How many there are" in printed
    assert "--inner.share FLOAT Of all, 100 % being 1 (default 0.5)" in printed


def test_what_is_no_yaml_is_a_wrong_word(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(Outer, "--count", "[1")
    assert stop.value.code == 2
    assert "'[1' is no YAML" in capsys.readouterr().err


def test_single_fields():
    parser = argparse.ArgumentParser()
    add_field(parser, Inner, "share", "--part")
    add_field(parser, Outer, "quiet")
    assert vars(parser.parse_args([])) == {"share": 0.5, "quiet": False}
    assert vars(parser.parse_args(["--part", "0.1", "--quiet"])) == {"share": 0.1, "quiet": True}


def test_training_in_words(tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text("model: tiny\n")
    words = [
        "--world.seeds",
        "[0, 4]",
        "--bev",
        "null",
        "--optimiser.learning-rate",
        "1e-3",
        "--world.sensor.noise",
        "2",
    ]
    config = load_yaml(TrainingConfig, path, parsed(TrainingConfig, *words))
    assert config.world is not None
    assert (config.world.seeds, config.world.sensor.noise, config.bev) == ((0, 4), 2.0, None)
    assert config.optimiser.learning_rate == 1e-3
