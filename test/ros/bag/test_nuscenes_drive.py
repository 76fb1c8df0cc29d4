"""A miniature nuScenes data set as bags, through the replay into a submission that the devkit evaluates."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")
pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from miniature_nuscenes import SCENES, SPLIT, VERSION, write_miniature
from nuscenes.eval.detection.evaluate import DetectionEval
from support import SMALLEST

from bevformer_ros import geometry
from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.datasets.nuscenes_tables import (
    open_dataset,
    pose_matrix,
    sample_annotations,
    samples_of_scene,
    stamp_ns,
)
from bevformer_ros.evaluation.protocol import protocol
from bevformer_ros.evaluation.submission_file import write_submission
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.evaluation import evaluate
from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.bag.results import read_boxes
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.bag.submission import results_of, stamps_of
from bevformer_ros.ros.calibration import camera_model
from bevformer_ros.ros.conversions import (
    detections_to_message,
    kinematics_to_message,
    stamp_to_ns,
    transform_from_message,
)
from bevformer_ros.ros.topics import OUTPUT, TRUTH
from bevformer_ros.training.nuscenes_dataset import NuscenesDataset

RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_miniature(tmp_path_factory.mktemp("nuscenes") / "data")


@pytest.fixture(scope="module")
def dataset(root):
    return open_dataset(root, VERSION)


@pytest.fixture(scope="module")
def bags(root, tmp_path_factory):
    """By scene."""
    folder = tmp_path_factory.mktemp("bags") / "bags"
    assert main(["nuscenes-to-bag", str(root), "--scene", *SCENES, "-o", str(folder)]) == 0
    return {scene: folder / scene for scene in SCENES}


def test_every_image_is_there_untouched_and_at_its_time(dataset, root, bags):
    records = {
        (record["channel"], stamp_ns(record)): record
        for record in dataset.sample_data
        if record["sample_token"].startswith(SCENES[0])
    }
    assert len(records) == 6 * 13 + 3
    with BagReader(bags[SCENES[0]]) as bag:
        for camera in RIG.cameras:
            images = [(entry.stamp_ns, deserialize(entry)) for entry in bag.messages([camera.image_topic])]
            infos = [deserialize(entry) for entry in bag.messages([camera.camera_info_topic])]
            assert len(images) == len(infos) == 13
            for (stamp, image), info in zip(images, infos, strict=True):
                record = records[camera.name, stamp]
                assert bytes(image.data) == (root / record["filename"]).read_bytes()
                assert stamp_to_ns(image.header.stamp) == stamp_to_ns(info.header.stamp) == stamp
                calibration = dataset.get("calibrated_sensor", record["calibrated_sensor_token"])
                intrinsics, lens = camera_model(info, (160, 90), rectified=False)
                np.testing.assert_array_equal(intrinsics, calibration["camera_intrinsic"])
                assert lens.is_pinhole
        poses = {entry.stamp_ns: deserialize(entry).transforms[0] for entry in bag.messages(["/tf"])}
        static = deserialize(next(bag.messages(["/tf_static"]))).transforms
    assert set(poses) == {stamp for _, stamp in records}
    for (_, stamp), record in records.items():
        expected = pose_matrix(dataset.get("ego_pose", record["ego_pose_token"]))
        np.testing.assert_allclose(transform_from_message(poses[stamp].transform), expected, atol=1e-9)
    assert {entry.child_frame_id for entry in static} == {"LIDAR_TOP", *(camera.name for camera in RIG.cameras)}


def test_truth_lies_at_the_keyframes(dataset, bags):
    with BagReader(bags[SCENES[1]]) as bag:
        found = read_boxes(bag, TRUTH)
        ids = [[entry.id for entry in deserialize(message).detections] for message in bag.messages([TRUTH.boxes])]
    samples = samples_of_scene(dataset, SCENES[1])
    assert list(found) == [stamp_ns(sample) for sample in samples]
    for sample, entry, names in zip(samples, found.values(), ids, strict=True):
        expected = sample_annotations(dataset, sample)
        assert len(sample["anns"]) > len(expected.boxes) > 10, "those without points are left out"
        np.testing.assert_allclose(entry.boxes.centers, expected.boxes.centers, atol=1e-9)
        np.testing.assert_array_equal(entry.velocity_known, expected.velocity_known)
        np.testing.assert_array_equal(entry.visibility, expected.visibility)
        assert tuple(names) == expected.instances
        assert np.linalg.norm(entry.boxes.centers[:, :2], axis=1).max() < 45.1
    assert any(not entry.velocity_known.all() for entry in found.values()), "the case must occur"


def test_cameras_stand_where_the_data_set_says(dataset, bags):
    """Each at its own time, seen from the front camera's; about the lidar's frame, which is level."""
    sample = samples_of_scene(dataset, SCENES[0])[1]
    records = [dataset.get("sample_data", sample["data"][camera.name]) for camera in RIG.cameras]
    with BagReader(bags[SCENES[0]]) as bag:
        frame = BagScene(bag, RIG).frame(stamp_ns(records[0]))
    assert RIG.reference_camera == RIG.cameras[0].name
    for camera, record in zip(frame.cameras, records, strict=True):
        assert camera.stamp_ns == stamp_ns(record)
        global_from_ego = pose_matrix(dataset.get("ego_pose", record["ego_pose_token"]))
        ego_from_camera = pose_matrix(dataset.get("calibrated_sensor", record["calibrated_sensor_token"]))
        expected = geometry.invert(global_from_ego @ ego_from_camera) @ frame.world_from_bev
        np.testing.assert_allclose(camera.camera_from_bev, expected, atol=1e-6)


def test_training_sees_what_the_replay_sees(dataset, bags):
    """The same images from the same places; only the time that the frame is named by differs."""
    model = ModelConfig("test", cameras=tuple(camera.name for camera in RIG.cameras))
    (labelled,) = NuscenesDataset(dataset, SPLIT, model).frames(1, 1, 1)
    with BagReader(bags[SCENES[1]]) as bag:
        replayed = BagScene(bag, RIG).frame(labelled.frame.cameras[0].stamp_ns)
    ours, theirs = (geometry.invert(frame.world_from_bev) for frame in (labelled.frame, replayed))
    for trained, seen in zip(labelled.frame.cameras, replayed.cameras, strict=True):
        assert (trained.name, trained.stamp_ns) == (seen.name, seen.stamp_ns)
        np.testing.assert_array_equal(trained.image, seen.image)
        np.testing.assert_array_equal(trained.intrinsics, seen.intrinsics)
        np.testing.assert_allclose(trained.camera_from_bev @ ours, seen.camera_from_bev @ theirs, atol=1e-5)


def test_replay_evaluate_and_submit(dataset, root, bags, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--model", str(SMALLEST), "--device", "cpu", "--score-threshold", "0"]
    assert main(["replay", *map(str, bags.values()), "-o", str(out), *words]) == 0
    assert main(["evaluate", str(out / SCENES[0]), str(out / SCENES[1])]) == 0
    assert "samples               6" in capsys.readouterr().out
    file = tmp_path / "results.json"
    command = ["submission", str(root), "--results", str(out / SCENES[0]), "-o", str(file)]
    assert main(command) == 0
    assert "3 of 6 samples have results" in capsys.readouterr().out
    DetectionEval(dataset, protocol(), str(file), SPLIT, str(tmp_path), verbose=False)


def test_the_devkit_agrees_on_boxes_from_bags(dataset, bags, tmp_path):
    """The truth, moved by 0.45 m, as results: once through our bags, once through a submission."""
    pairs = []
    for scene, drive in bags.items():
        result = tmp_path / scene
        with BagReader(drive) as bag, BagWriter(result) as results:
            for stamp, entry in read_boxes(bag, TRUTH).items():
                boxes = entry.boxes
                boxes.centers[:, 0] += 0.45
                boxes.scores[:] = np.linspace(0.9, 0.1, len(boxes))
                results.write(OUTPUT.boxes, detections_to_message(boxes, RIG.base_frame), stamp)
                results.write(OUTPUT.kinematics, kinematics_to_message(boxes, RIG.base_frame), stamp)
        pairs.append((result, drive))
    stamps = stamps_of(dataset, [])
    found = results_of(pairs, RIG, stamps)
    write_submission(tmp_path / "results.json", {token: found.get(token) for token in stamps})
    devkit = DetectionEval(dataset, protocol(), str(tmp_path / "results.json"), SPLIT, str(tmp_path), verbose=False)
    expected, _ = devkit.evaluate()
    scores = evaluate(pairs, RIG, TRUTH).scores
    assert scores.errors["mATE"] == pytest.approx(0.45, abs=0.02)
    assert scores.mean_ap == pytest.approx(expected.mean_ap, abs=1e-9)
    assert scores.nds == pytest.approx(expected.nd_score, abs=1e-9)


@pytest.mark.parametrize("words", [["--scene", "all"], ["--split", SPLIT]])
def test_many_scenes_become_a_folder_of_bags(root, tmp_path, words):
    assert main(["nuscenes-to-bag", str(root), "-o", str(tmp_path / "bags"), *words]) == 0
    assert sorted(path.name for path in (tmp_path / "bags").iterdir()) == sorted(SCENES)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--scene", "scene-9999"], "there is no scene 'scene-9999'; there are scene-0103, scene-0916"),
        (["--scene", SCENES[0], "--version", "v1.0-trainval"], "has no tables of 'v1.0-trainval'; it has v1.0-mini"),
    ],
)
def test_what_the_command_refuses(root, tmp_path, capsys, words, complaint):
    assert main(["nuscenes-to-bag", str(root), "-o", str(tmp_path / "bag"), *words]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()


def test_topics_are_those_of_the_node():
    assert topics.resolved(topics.DETECTIONS) == OUTPUT.boxes == "/detector/detections"
