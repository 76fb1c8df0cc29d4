from __future__ import annotations

from bevformer_ros.ros.node.camera_health import Level, Problem
from bevformer_ros.ros.node.health_log import HealthLog

SILENT = Problem("CAM_BACK", "no_images", Level.ERROR, "no images for 1.0 s")


def test_nothing_to_tell():
    assert list(HealthLog().lines([], 0.0)) == []


def test_begin_repeats_and_end():
    log = HealthLog()
    told = [(now / 2, line) for now in range(50) for line in log.lines([SILENT] if now < 45 else [], now / 2)]
    assert told == [
        (0.0, (Level.ERROR, "CAM_BACK: no images for 1.0 s")),
        (10.0, (Level.ERROR, "CAM_BACK: no images for 1.0 s (for 10 s)")),
        (20.0, (Level.ERROR, "CAM_BACK: no images for 1.0 s (for 20 s)")),
        (23.0, (Level.OK, "CAM_BACK: no_images is over after 22.0 s")),
    ]


def test_what_flickers_is_told_once():
    log = HealthLog()
    told = [line for now in range(10) for line in log.lines([SILENT] if now % 2 else [], now / 2)]
    assert told == [(Level.ERROR, "CAM_BACK: no images for 1.0 s")]


def test_two_problems_of_one_camera_are_two():
    late = Problem("CAM_BACK", "unmatched", Level.ERROR, "late")
    assert len(list(HealthLog().lines([SILENT, late], 0.0))) == 2


def test_a_camera_is_well_when_its_last_problem_is_over():
    log, late = HealthLog(), Problem("CAM_BACK", "unmatched", Level.ERROR, "late")
    told = [line for now, problems in enumerate([[SILENT], [late], [late], []]) for line in log.lines(problems, now)]
    assert told == [
        (Level.ERROR, "CAM_BACK: no images for 1.0 s"),
        (Level.ERROR, "CAM_BACK: late"),
        (Level.OK, "CAM_BACK: unmatched is over after 1.0 s"),
    ]
