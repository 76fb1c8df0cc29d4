"""The whole detector, fed frame by frame, against the official code: golden cases 1 and 2."""

from typing import NamedTuple

import golden_cases
import numpy as np
import pytest
import torch
from golden_detections import assert_same_detections
from official_config import golden_network
from scipy.linalg import rq

from bevformer_ros import geometry
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.inference.preprocessing import PreparedFrame
from bevformer_ros.model.bev_encoder import pillar_points, project_pillars
from bevformer_ros.model.box_coding import Boxes, boxes_to_official
from bevformer_ros.types import CameraImage, SurroundFrame

INTERVAL_NS = 500_000_000
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_GPU])]


class Golden(NamedTuple):
    """A golden case in the detector. seen: what the network's parts last gave, by its official name."""

    detect: Detector
    inputs: dict[str, torch.Tensor]
    expected: dict[str, torch.Tensor]
    seen: dict[str, torch.Tensor]

    @property
    def frames(self):
        return self.detect.config.temporal.frames

    def run(self, poses, skipped=()):
        """Detections of the current frame after its past ones; poses by frame index; skipped frames are not given."""
        self.detect.reset("test")
        self.seen["visible"] = []
        device = self.detect._device
        blank = CameraImage("", 0, np.zeros((1, 1, 3), np.uint8), np.eye(3), np.eye(4))
        for index, number in enumerate(self.frames):
            if number in skipped:
                continue
            self.detect._preprocess = lambda frame, mark, index=index: prepared(frame, self.inputs, index, device)
            cameras = (blank,) * len(self.detect.config.cameras)
            detections = self.detect(SurroundFrame(10**10 + number * INTERVAL_NS, cameras, poses[number]))
        return detections

    def assert_seen(self, name, case="", tolerance=1e-4):
        expected = self.expected[case + name]
        if name == "all_cls_scores":  # inference makes those of the last layer alone
            expected = expected[-1:]
        golden_cases.assert_equal(self.seen[name].cpu(), expected, case + name, tolerance)

    def assert_detected(self, detections):
        boxes = boxes_to_official(Boxes(*(torch.from_numpy(getattr(detections, name)) for name in Boxes._fields)))
        actual = (boxes.float(), torch.from_numpy(detections.scores).float(), torch.from_numpy(detections.labels))
        expected = tuple(self.expected[f"coder.{name}"] for name in ("bboxes", "scores", "labels"))
        assert_same_detections(actual, expected, "detections")


def prepared(frame, inputs, index, device):
    """The golden images are floats that no uint8 image gives: they enter behind the preprocessing."""
    projections = inputs["lidar2img_own_lidar_frame" if "lidar2img_own_lidar_frame" in inputs else "lidar2img"]
    intrinsics, camera_from_bev = zip(*map(split_projection, projections), strict=True)
    images = inputs["img"][:, index].to(device)
    valid = np.ones(images.shape[:2], np.bool_)
    return PreparedFrame(frame, images, valid, np.stack(intrinsics), np.stack(camera_from_bev))


def split_projection(image_from_bev):
    """Intrinsics and camera_from_bev whose product is the projection."""
    matrix = image_from_bev.numpy()
    intrinsics, rotation = rq(matrix[:3, :3])
    signs = np.diag(np.sign(np.diag(intrinsics)))
    intrinsics, rotation = intrinsics @ signs, signs @ rotation
    camera_from_bev = np.eye(4)
    camera_from_bev[:3, :3], camera_from_bev[:3, 3] = rotation, np.linalg.solve(intrinsics, matrix[:3, 3])
    return intrinsics, camera_from_bev


def golden_case(path, device):
    tensors, description = golden_cases.load(path)
    inputs = golden_cases.part(tensors, "inputs.")
    network = golden_network(tensors, description)
    seen = {}
    if network.temporal_fusion is not None:
        network.temporal_fusion.register_forward_hook(lambda *hooked: seen.update(bev_fused=hooked[2]))
    network.decoder.register_forward_hook(
        lambda *hooked: seen.update(all_cls_scores=hooked[2].class_logits, all_bbox_preds=hooked[2].box_codes)
    )
    points = pillar_points(network.config.bev, network.config.encoder.pillar_points, torch.device("cpu"))
    network.bev_encoder.register_forward_pre_hook(
        lambda _, arguments: seen["visible"].append(project_pillars(points.to(device), *arguments[2:]).visible.cpu())
    )
    detector = Detector(network, trained=True, device=device, cuda_graphs=False)  # graphs know no hooks
    return Golden(detector, inputs, golden_cases.part(tensors, "outputs."), seen)


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(scope="module", params=golden_cases.variants("case2_temporal"))
def temporal(request, device):
    return golden_case(request.param, device)


def official_poses(golden):
    """Poses in the current BEV frame, rounded to float32 as the official data set does it."""
    poses = {frame: golden.inputs[f"frame{frame}.lidaradj2lidarcurr"].double().numpy() for frame in golden.frames[:-1]}
    return {**poses, 0: np.eye(4)}


def exact_poses(golden):
    """Poses in the world, as a car has them."""

    def matrix(name):
        quaternion = np.roll(golden.inputs[f"{name}_rotation_wxyz"].numpy(), -1)
        return geometry.transform(golden.inputs[f"{name}_translation"].numpy(), quaternion)

    return {frame: matrix(f"frame{frame}.ego2global") @ matrix("lidar2ego") for frame in golden.frames}


@pytest.mark.parametrize("path", golden_cases.variants("case1_single_frame"))
def test_single_frame(path, device):
    golden = golden_case(path, device)
    golden.assert_detected(golden.run({0: np.eye(4)}))
    for name in ("all_cls_scores", "all_bbox_preds"):
        golden.assert_seen(name)


def test_history_of_images_with_poses(temporal):
    temporal.assert_detected(temporal.run(official_poses(temporal)))
    assert temporal.detect.history.depth == len(temporal.frames) - 1
    for name in ("bev_fused", "all_cls_scores", "all_bbox_preds"):
        temporal.assert_seen(name)


def test_history_with_missing_frames(temporal):
    cases = sorted({name.partition(".")[0] for name in temporal.expected if name.startswith("miss")})
    for case in cases:
        temporal.run(official_poses(temporal), skipped=[-int(digit) for digit in case.removeprefix("miss")])
        for name in ("bev_fused", "all_cls_scores", "all_bbox_preds"):
            temporal.assert_seen(name, f"{case}.")


def test_history_with_poses_in_double_precision(temporal):
    """The official code rounds world coordinates, of a kilometre and more, to float32; ours must come close to that.

    A point that projects onto an image's border may be seen with one rounding and not the other: then most values can.
    """
    temporal.run(official_poses(temporal))
    visible = torch.stack(temporal.seen["visible"])
    temporal.run(exact_poses(temporal))
    moved_over_a_border = (torch.stack(temporal.seen["visible"]) != visible).sum()
    assert moved_over_a_border <= 1e-4 * visible.numel()
    for name in ("bev_fused", "all_cls_scores", "all_bbox_preds"):
        actual, expected = temporal.seen[name], temporal.expected[name]
        assert (actual - expected).abs().median() <= 1e-4 * expected.abs().max(), name
        if not moved_over_a_border:
            temporal.assert_seen(name, tolerance=1e-3)
