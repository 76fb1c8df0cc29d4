from __future__ import annotations

import pytest

from bevformer_ros.config import load_yaml
from bevformer_ros.taxonomy import CLASS_ID, CLASS_NAMES
from bevformer_ros.tracking.config import ClassMotions, TrackingConfig

CAR_WITHOUT_GATE = """
classes:
  car:
    gate_m: 0
    acceleration_density: 1
    position_std_m: 1
    depth_std_share: 0
    velocity_std_mps: 1
    yaw_std_rad: 1
    turn_density: 1
"""


def test_defaults_cover_every_class():
    gates = ClassMotions().column("gate_m")
    assert gates.shape == (len(CLASS_NAMES),)
    assert gates[CLASS_ID["bus"]] > gates[CLASS_ID["pedestrian"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low_score: 0.5", "low_score is 0.5 and high_score 0.3"),
        ("report_coast_s: 4", "report_coast_s is 4.0, expected 0 to maximum_coast_s 3.0"),
        ("score_half_life_s: 0", "score_half_life_s is 0.0, expected a positive number"),
        ("confirm_score: -1", "confirm_score is -1.0, expected zero or more"),
        ("classes: {car: {gate_m: 4}}", "missing key"),
        ("classes: {lorry: {}}", "unknown key 'lorry'"),
        (CAR_WITHOUT_GATE, "gate_m is 0.0, expected a positive number"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    file = tmp_path / "tracking.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_yaml(TrackingConfig, file)
