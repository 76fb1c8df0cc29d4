"""From bags to scores: frames, times and gaps."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")
pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from bevformer_ros.msg import DetectorStatus, ReasonCount, StageLatency
from support import REPOSITORY, SMALLEST

from bevformer_ros import geometry
from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.model.checkpoint import save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.evaluation import evaluate
from bevformer_ros.ros.bag.files import BagReader, BagWriter
from bevformer_ros.ros.bag.results import EgoFrame, read_boxes
from bevformer_ros.ros.bag.scene import transforms_of
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.conversions import (
    detections_to_message,
    header_of,
    kinematics_to_message,
    track_kinematics_to_message,
    tracks_to_message,
)
from bevformer_ros.ros.topics import LIDAR_FRAME, OUTPUT, OUTPUT_STATUS, OUTPUT_TRACKS, TRUTH, BoxTopics
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR
from bevformer_ros.taxonomy import CLASSES
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import MILLISECOND_NS

DRIVE = Drive(seed=5, seconds=1.5, rate=2.0, size=(160, 90))
RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "drive"
    simulate(path, RIG, DRIVE)
    return path


@pytest.fixture(scope="module")
def truth(drive):
    with BagReader(drive) as bag:
        return read_boxes(bag, TRUTH)


def write_results(path, found, frame_id=RIG.base_frame, drop_last=False):
    with BagWriter(path) as bag:
        for count, boxes in enumerate(found, 1):
            bag.write(OUTPUT.boxes, detections_to_message(boxes, frame_id), boxes.stamp_ns)
            bag.write(OUTPUT.kinematics, kinematics_to_message(boxes, frame_id), boxes.stamp_ns)
            status = DetectorStatus(header=header_of(boxes.stamp_ns, frame_id), sets_processed=count, model="ideal")
            status.latencies = [StageLatency(stage="detect", milliseconds=10.0 * count)]
            status.sets_dropped = [ReasonCount(reason="superseded", count=2)]
            bag.write(OUTPUT_STATUS, status, boxes.stamp_ns)
    return path


def scores_of(result, drive):
    return evaluate([(result, drive)], RIG, TRUTH)


def assert_perfect(found):
    """Of the classes that there are; attributes are those of the truth."""
    present = [entry for entry in found.scores.classes.values() if entry.truths]
    assert len(present) > 4
    for entry in present:
        assert entry.ap == pytest.approx(1.0, abs=1e-9)
        errors = np.array(list(entry.errors.values()))
        assert np.nanmax(errors) < 1e-6


def test_the_truth_itself_is_perfect(drive, truth, tmp_path, capsys):
    result = write_results(tmp_path / "out", [entry.boxes for entry in truth.values()])
    found = scores_of(result, drive)
    assert_perfect(found)
    assert (len(found.samples), found.missing) == (3, 0)
    command = ["evaluate", str(result), "--ground-truth", str(drive), "--json", str(tmp_path / "scores.json")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "NDS" in text and "superseded" in text and "detect" in text
    written = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    jsonschema.validate(written, json.loads((REPOSITORY / "config" / "evaluation.schema.json").read_text()))
    assert written["mean_ap"] == found.scores.mean_ap
    assert written["runs"][str(result)] == {
        "model": "ideal",
        "trained": False,
        "sets_processed": 3,
        "sets_dropped": {"superseded": 2},
        "latency_ms": {"detect": [20.0, pytest.approx(29.0)], "total, last image to boxes": [0.0, 0.0]},
    }


def test_what_a_bag_has_lost_is_said_and_the_rest_scored(drive, truth, tmp_path, capsys):
    """A result that cannot be read, one that makes no sense, and one that is missing."""
    boxes = [entry.boxes for entry in truth.values()]
    whole = write_results(tmp_path / "whole", boxes[:2])
    with BagReader(whole) as old, BagWriter(tmp_path / "out") as new:
        for message in old.messages():
            spoilt = message.topic == OUTPUT.boxes and message.stamp_ns == boxes[1].stamp_ns
            new.write_raw(message.topic, message.type_name, b"??" if spoilt else message.data, message.stamp_ns)
        senseless = detections_to_message(boxes[2], RIG.base_frame)
        senseless.detections[0].results.clear()
        new.write(OUTPUT.boxes, senseless, boxes[2].stamp_ns)
    file = tmp_path / "scores.json"
    words = ["evaluate", str(tmp_path / "out"), "--ground-truth", str(drive), "--json", str(file)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 samples have no result and count as empty." in printed
    assert f"INCOMPLETE: not all of the bags could be read\n{tmp_path / 'out'}: 2 messages on {OUTPUT.boxes}" in printed
    written = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(written, json.loads((REPOSITORY / "config" / "evaluation.schema.json").read_text()))
    assert (written["missing"], written["complete"], len(written["losses"])) == (2, False, 1)


def test_the_end_of_a_torn_drive_is_left_out(drive, truth, tmp_path):
    """Truth that tf no longer reaches."""
    last = max(truth)
    with BagReader(drive) as old, BagWriter(tmp_path / "torn") as new:
        for message in old.messages():
            if message.topic != "/tf" or message.stamp_ns < last - MILLISECOND_NS:
                new.write_raw(message.topic, message.type_name, message.data, message.stamp_ns)
    found = scores_of(write_results(tmp_path / "out", [entry.boxes for entry in truth.values()], LIDAR_FRAME), drive)
    assert (len(found.samples), found.losses) == (3, ())
    found = scores_of(tmp_path / "out", tmp_path / "torn")
    assert len(found.samples) == 2
    assert found.losses == (f"{tmp_path / 'torn'}: 1 messages on {TRUTH.boxes} could not be used",)


@pytest.mark.parametrize("frame_id", [LIDAR_FRAME, RIG.fixed_frame])
def test_results_may_stand_in_another_frame(drive, truth, tmp_path, frame_id):
    with BagReader(drive) as bag:
        ego = EgoFrame(transforms_of(bag), RIG)
    lidar_from_base = geometry.invert(BASE_FROM_LIDAR)
    found = [
        entry.boxes.transformed(lidar_from_base if frame_id == LIDAR_FRAME else ego.pose(stamp))
        for stamp, entry in truth.items()
    ]
    assert_perfect(scores_of(write_results(tmp_path / "out", found, frame_id), drive))


def test_a_foreign_detector_is_scored_by_its_own_topic_and_words(drive, truth, tmp_path, capsys):
    """Without velocities, which are then not known; what the map ignores takes no part."""
    with BagWriter(tmp_path / "foreign") as bag:
        for entry in truth.values():
            message = detections_to_message(entry.boxes, RIG.base_frame)
            for detection in message.detections:
                hypothesis = detection.results[0].hypothesis
                hypothesis.class_id = {"car": "17", "pedestrian": "animal"}.get(
                    hypothesis.class_id, hypothesis.class_id
                )
            bag.write("/other/boxes", message, entry.boxes.stamp_ns)
    (tmp_path / "classes.yaml").write_text("car: ['17']\nignore: [animal]\n", encoding="utf-8")
    file = tmp_path / "scores.json"
    words = ["--ground-truth", str(drive), "--detections", "/other/boxes", "--json", str(file)]
    assert main(["evaluate", str(tmp_path / "foreign"), *words, "--classes", str(tmp_path / "classes.yaml")]) == 0
    assert "The results hold no velocities: mAVE is not known" in capsys.readouterr().out
    scores = json.loads(file.read_text())
    assert scores["errors"]["mAVE"] is None and scores["classes"]["car"]["errors"]["mAVE"] is None
    assert scores["classes"]["car"]["ap"] == pytest.approx(1.0) and scores["classes"]["pedestrian"]["ap"] == 0.0
    assert main(["evaluate", str(tmp_path / "foreign"), *words]) == 1
    assert "class '17' is not one of" in capsys.readouterr().err


def test_two_runs_are_compared_over_the_same_scenes(drive, truth, tmp_path, capsys):
    boxes = [entry.boxes for entry in truth.values()]
    names = {"good": boxes, "better": boxes, "poor": boxes[:1], "poorer": boxes[:1]}
    paths = {name: str(write_results(tmp_path / name, found)) for name, found in names.items()}
    words = [paths["good"], paths["better"], "--ground-truth", str(drive), str(drive)]
    assert main(["evaluate", *words, "--compare", paths["poor"], paths["poorer"]]) == 0
    text = capsys.readouterr().out
    assert re.search(r"mAP of the second less the first's: -0\.\d+ \(95 %", text)
    assert "mAP over 2 scenes" in text and "0 to 10 m" in text


def test_results_of_another_time_are_compared_where_the_ego_was_then(drive, truth, tmp_path):
    """What stands still is still right 30 ms later, though the ego has moved on by a quarter of a metre."""
    with BagReader(drive) as bag:
        ego = EgoFrame(transforms_of(bag), RIG)
    found = []
    for stamp, entry in truth.items():
        later = stamp + 30 * MILLISECOND_NS
        moved = ego.boxes(replace(entry, frame_id=RIG.base_frame), later)
        still = np.linalg.norm(entry.boxes.velocities, axis=1) == 0
        assert np.linalg.norm(moved.centers - entry.boxes.centers, axis=1).min() > 0.1
        found.append(replace(moved.select(still), stamp_ns=later))
    label = CLASSES[np.bincount(np.concatenate([boxes.labels for boxes in found])).argmax()].name
    scores = scores_of(write_results(tmp_path / "out", found), drive).scores.classes[label]
    assert scores.errors["mATE"] == pytest.approx(0.0, abs=1e-6)


def test_times_without_results_count_as_empty(drive, truth, tmp_path):
    first, second, _ = (entry.boxes for entry in truth.values())
    far = replace(second, stamp_ns=second.stamp_ns + 100 * MILLISECOND_NS)
    found = scores_of(write_results(tmp_path / "out", [first, far]), drive)
    assert (len(found.samples), found.missing) == (3, 2)
    assert 0 < found.scores.classes["car"].ap < 0.9
    assert "2 of 3 samples have no result" in found.text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "does not say which bag it came from"),
        (["--ground-truth", "DRIVE", "DRIVE"], "1 results but 2 bags with the truth"),
        (["--ground-truth", "OUT"], "has no topic /ground_truth/detections"),
    ],
)
def test_what_the_command_refuses(drive, truth, tmp_path, capsys, words, complaint):
    result = write_results(tmp_path / "out", [entry.boxes for entry in truth.values()])
    places = {"DRIVE": str(drive), "OUT": str(result)}
    assert main(["evaluate", str(result), *(places.get(word, word) for word in words)]) == 1
    assert complaint in capsys.readouterr().err


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random ones, as if they were trained, in a file with their configuration."""
    config = load_yaml(ModelConfig, SMALLEST)
    path = tmp_path_factory.mktemp("weights") / "smallest.safetensors"
    save_checkpoint(path, build_network(config).state_dict(), config)
    return str(path)


def test_worlds_score_as_their_bags_do(weights, tmp_path, capsys):
    """Driven through at once, or written, replayed and evaluated one by one: with raw images it is all the same."""
    rig, words = "nuscenes", ["--seconds", "1.5", "--size", "160x90"]
    bags = []
    for seed in ("9000", "9001"):
        bags.append(str(tmp_path / seed))
        assert main(["simulate", "-o", bags[-1], "--seed", seed, "--rate", "2", "--rig", rig, *words]) == 0
    replayed = tmp_path / "replayed"
    offline = ["--model", weights, "--device", "cpu", "--score-threshold", "0", "--rig", rig, "--precision", "float32"]
    assert main(["replay", *bags, "-o", str(replayed), *offline]) == 0
    results = [str(replayed / seed) for seed in ("9000", "9001")]
    assert main(["evaluate", *results, "--rig", rig, "--json", str(tmp_path / "bags.json")]) == 0
    world = ["--world", "9000:9002", "--weights", weights, "--device", "cpu", "--precision", "float32"]
    world += ["--json", str(tmp_path / "world.json")]
    capsys.readouterr()
    assert main(["evaluate", *world, *words]) == 0
    printed = capsys.readouterr().out
    assert "detections of smallest, worlds 9000 to 9001" in printed and "NDS" in printed
    assert "UNTRAINED" not in printed and "learned" not in printed
    by_bags, by_world = (json.loads((tmp_path / name).read_text()) for name in ("bags.json", "world.json"))
    assert (by_world["seeds"], by_world["samples"], by_world["size"]) == ([9000, 9001], 6, [160, 90])
    for name, entry in by_bags["classes"].items():
        other = by_world["classes"][name]
        assert (other["truths"], other["detections"]) == (entry["truths"], entry["detections"])
        assert other["aps"] == pytest.approx(entry["aps"], abs=1e-6)
    assert sum(entry["detections"] for entry in by_world["classes"].values()) > 10
    assert by_world["nds"] == pytest.approx(by_bags["nds"], abs=1e-6)
    assert "0 to 10 m" in printed
    by_distance = {name: entry["mean_ap"] for name, entry in by_bags["by_distance"].items()}
    assert {name: entry["mean_ap"] for name, entry in by_world["by_distance"].items()} == pytest.approx(by_distance)


def test_what_one_has_to_know_about_worlds_is_said(capsys):
    words = ["--model", str(SMALLEST), "--device", "cpu", "--seconds", "0.5", "--size", "160x90", "--workers", "1"]
    assert main(["evaluate", "--world", "8999:9001", *words]) == 0
    printed = capsys.readouterr().out
    assert "1 of these worlds may have been learned from; only 9000:10000 is reserved" in printed
    assert "UNTRAINED" in printed


@pytest.mark.parametrize("text", ["", "9000", "9000:", "9001:9001", "a:b"])
def test_ranges_of_worlds_that_are_none(text, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--world", text])
    assert "expected FIRST:STOP such as 9000:9010" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "expected either bags with results or --world, got none"),
        (["bag", "--world", "9000:9001"], "got both"),
        (["--world", "9000:9001", "--model", str(SMALLEST), "--proposals"], "smallest makes no proposals"),
        (["--world", "9000:9001", "--workers", "-1"], "workers is -1, expected 0 or more"),
    ],
)
def test_worlds_refused(words, complaint, capsys):
    assert main(["evaluate", *words]) == 1
    assert complaint in capsys.readouterr().err


def write_tracks(path, truth, drive, topics=OUTPUT_TRACKS):
    """What the tracker makes of the truth."""
    with BagReader(drive) as bag:
        ego = EgoFrame(transforms_of(bag), RIG)
    tracker = Tracker()
    with BagWriter(path) as bag:
        for stamp_ns, entry in truth.items():
            tracks = tracker(entry.boxes, ego.pose(stamp_ns))
            bag.write(topics.boxes, tracks_to_message(tracks, RIG.base_frame), stamp_ns)
            bag.write(topics.kinematics, track_kinematics_to_message(tracks, RIG.base_frame), stamp_ns)
    return path


def test_tracks_in_a_bag(drive, truth, tmp_path, capsys):
    result, file = write_tracks(tmp_path / "out", truth, drive), tmp_path / "scores.json"
    assert main(["evaluate", "--tracking", str(result), "--ground-truth", str(drive), "--json", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["class", "AMOTA", "AMOTP"]
    scores = json.loads(file.read_text())
    assert scores["samples"] == len(truth) and scores["amota"] > 0.95 and scores["ids"] == 0


def test_a_foreign_tracker_is_scored_by_its_own_topic_and_words(drive, truth, tmp_path, capsys):
    foreign = BoxTopics("/other/tracks", "/other/track_kinematics")
    result, file = write_tracks(tmp_path / "out", truth, drive, foreign), tmp_path / "scores.json"
    (tmp_path / "classes.yaml").write_text("ignore: [pedestrian]\n", encoding="utf-8")
    words = ["--detections", foreign.boxes, "--detection-kinematics", foreign.kinematics, "--json", str(file)]
    words += ["--classes", str(tmp_path / "classes.yaml")]
    assert main(["evaluate", "--tracking", str(result), "--ground-truth", str(drive), *words]) == 0
    scores = json.loads(file.read_text())
    assert scores["amota"] > 0.95 and "car" in scores["classes"] and "pedestrian" not in scores["classes"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "has no /detector/tracks; replay the drive with --tracking"),
        (["--detections", OUTPUT.boxes], "has no tracks on /detector/detections: at "),
        (["--compare", "OUT"], "--compare and --tracking exclude each other"),
    ],
)
def test_results_without_tracks_are_refused(drive, truth, tmp_path, capsys, words, complaint):
    result = write_results(tmp_path / "out", [entry.boxes for entry in truth.values()])
    assert main(["evaluate", "--tracking", str(result), "--ground-truth", str(drive), *words]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [("--perfect", "give --tracking too"), ("--tracking --proposals", "exclude each other")],
)
def test_options_that_mean_nothing_together(capsys, words, complaint):
    assert main(["evaluate", "--world", "9000:9001", *words.split()]) == 1
    assert complaint in capsys.readouterr().err


def test_the_truth_of_a_world_tracked(capsys):
    command = "evaluate --tracking --perfect --world 9000:9001 --seconds 1.5 --size 160x90"
    assert main(command.split()) == 0
    assert float(capsys.readouterr().out.splitlines()[-1].split()[1]) > 0.95
