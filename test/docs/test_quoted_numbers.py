"""What README and docs/training.md quote of the shipped weights fits together."""

from __future__ import annotations

from itertools import takewhile

import pytest
from support import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TRAINING = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")


def table(header: str) -> dict[str, list[float]]:
    """The numbers of a table in docs/training.md by the first column."""
    lines = TRAINING.split(header, 1)[1].splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in takewhile(lambda line: line.startswith("|"), lines)]
    return {name: list(map(float, numbers)) for name, *numbers in rows}


SCORES = table("| | mAP | NDS | mATE | mASE | mAOE | mAVE | mAAE |")


def test_readme_quotes_what_the_table_says():
    whole, first_stage = SCORES["decoder"], SCORES["perspective head (`--proposals`)"]
    assert f"trained on CPU cores alone, mAP {whole[0]:.2f} (" in README
    assert f"mAP {whole[0]:.3f}, NDS {whole[1]:.3f}; " in README
    assert f"the perspective head alone (`--proposals`) {first_stage[0]:.3f}, {first_stage[1]:.3f}" in README


@pytest.mark.parametrize(("name", "numbers"), SCORES.items())
def test_nds_is_that_of_its_row(name, numbers):
    mean_ap, nds, *errors = numbers
    assert nds == pytest.approx((5 * mean_ap + sum(1 - min(error, 1.0) for error in errors)) / 10, abs=1.1e-3)


@pytest.mark.parametrize("header", ["| AP | barrier |", "| mAP by match distance |"])
def test_map_is_the_mean_of_its_parts(header):
    parts = table(header)
    assert list(parts) == ["decoder", "perspective head"]
    for (name, numbers), scores in zip(parts.items(), list(SCORES.values())[:2], strict=True):
        assert sum(numbers) / len(numbers) == pytest.approx(scores[0], abs=1.1e-3), name
