"""The detector in ONNX Runtime, with a network that `bevformer-ros export` has written. Needs no torch.

    detector = load_onnx_detector("out/exported")
    detections = detector(frame)

Shapes: N cameras, H x W network input, Q cells of the BEV grid, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.inference.exported_model import MODEL_FILE, ExportedModel
from bevformer_ros.inference.frame_history import FrameHistory, planar_motions
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.image_plan import CameraPlan, CameraPlans, image_from_bev, matrices_of
from bevformer_ros.inference.results import HostBoxes, HostProposals
from bevformer_ros.inference.temporal_detector import Found, TemporalDetector
from bevformer_ros.model.config import ImageConfig, ModelConfig
from bevformer_ros.stage_clock import Mark
from bevformer_ros.types import SurroundFrame

try:
    import onnxruntime
    from PIL import Image
except ImportError as error:
    raise ValueError(
        f"the backend onnxruntime needs the Python module {error.name}: pip install onnxruntime pillow"
    ) from error

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class PreparedArrays:
    """inputs: of `encode`, each (1, N, ...), as in model.network.NetworkInputs, and `seen` as in
    BEVFormerV2.encode_images. image_from_bev: (N, 4, 4) in float64, because history composes it with later poses."""

    frame: SurroundFrame
    inputs: Arrays
    image_from_bev: NDArray[np.float64]


@dataclass(frozen=True)
class EncodedArrays:
    """outputs: of `encode`, by name. image_from_bev: (N, 4, 4). camera_valid: (1, N)."""

    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    outputs: Arrays
    image_from_bev: NDArray[np.float64]
    camera_valid: NDArray[np.bool_]


class StoredArrays(FrameHistory):
    """The frames that are remembered, in memory of the host."""

    def __init__(self, model: ModelConfig, history: HistoryConfig) -> None:
        super().__init__(model.temporal, history)
        self._model = model
        self._cells: dict[int, EncodedArrays] = {}

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for stored in self._cells.values() for array in self._kept(stored).values())

    def store(self, encoded: EncodedArrays) -> None:
        cell = self.remember(encoded.stamp_ns, encoded.world_from_bev)
        if cell is not None:
            self._cells[cell] = encoded

    def inputs_of_align(self, cell: int, past_from_now: NDArray[np.float64]) -> Arrays:
        """What brings the frame in a cell into the current BEV frame. past_from_now: (4, 4)."""
        stored = self._cells[cell]
        if self._model.temporal.mode == "warp":
            motion = planar_motions(past_from_now[None], self._model.bev)
            return {**self._kept(stored), "motion": motion.astype(np.float32)}
        projection = (stored.image_from_bev @ past_from_now)[None]
        return {
            **self._kept(stored),
            "image_from_bev": projection.astype(np.float32),
            "camera_valid": stored.camera_valid,
        }

    def _kept(self, stored: EncodedArrays) -> Arrays:
        prefix = "bev" if self._model.temporal.mode == "warp" else "features"
        return {name: array for name, array in stored.outputs.items() if name.startswith(prefix)}


class OnnxDetector(TemporalDetector[PreparedArrays, EncodedArrays]):
    """On the CPU, in float32, with as many threads as OMP_NUM_THREADS says, or as there are cores."""

    def __init__(self, folder: Path, model: ExportedModel, history: HistoryConfig | None = None) -> None:
        config = model.config
        self._encode_function = _Function(folder / "encode.onnx")
        self._detect_function = _Function(folder / "detect.onnx")
        past = len(config.temporal.frames) > 1
        self._align_function = _Function(folder / "align.onnx") if past else None
        width, height = config.image.padded_size
        self._encode_function.require("images", (1, len(config.cameras), 3, height, width))
        self._plans = CameraPlans(config.image)
        self._stored = StoredArrays(config, history or HistoryConfig())
        super().__init__(config, model.trained, "float32", self._stored)
        self.recommended_score_thresholds = model.score_thresholds
        self.error_model = model.error_model

    def _preprocessed(self, frame: SurroundFrame, mark: Mark) -> PreparedArrays:
        plans = self._plans.of(frame)
        intrinsics, camera_from_bev = matrices_of(frame, plans)
        projections = image_from_bev(intrinsics, camera_from_bev)
        width, height = self.config.image.padded_size
        images = np.zeros((1, len(plans), 3, height, width), np.float32)
        for image, camera, plan in zip(images[0], frame.cameras, plans, strict=True):
            if camera is not None and plan is not None:
                columns, rows = plan.plan.size
                image[:, :rows, :columns] = _normalised(plan, camera.image, self.config.image)
        seen = self._plans.seen
        inputs = {
            "seen": np.ones((1, len(plans), height, width), np.bool_) if seen is None else seen,
            "images": images,
            "camera_valid": np.array([[camera is not None for camera in frame.cameras]]),
            "intrinsics": intrinsics[None].astype(np.float32),
            "camera_from_bev": camera_from_bev[None].astype(np.float32),
            "image_from_bev": projections[None].astype(np.float32),
        }
        return PreparedArrays(frame, inputs, projections)

    def _encode(self, prepared: PreparedArrays, mark: Mark) -> EncodedArrays:
        outputs = self._encode_function(prepared.inputs)
        mark("encode")
        frame, valid = prepared.frame, prepared.inputs["camera_valid"]
        return EncodedArrays(frame.stamp_ns, frame.world_from_bev, outputs, prepared.image_from_bev, valid)

    def _store(self, encoded: EncodedArrays) -> None:
        self._stored.store(encoded)

    def _detect(self, encoded: EncodedArrays, mark: Mark) -> Found:
        choice = self._stored.choose(encoded.stamp_ns, encoded.world_from_bev)
        maps = []
        for cell, motion in zip(choice.cells, choice.past_from_now, strict=True):
            assert self._align_function is not None
            maps.append(self._align_function(self._stored.inputs_of_align(cell, motion))["aligned"])
        maps.append(encoded.outputs["bev"])
        bevs = np.stack([maps[index] for index in choice.order], axis=1)
        mark("buffer")
        outputs = self._detect_function({**encoded.outputs, "bevs": bevs})
        boxes = HostBoxes(*(outputs[name] for name in HostBoxes._fields))
        mark("detect")
        return Found(boxes, _proposals_in(encoded.outputs), len(choice.cells), choice.velocity_scale)


def load_onnx_detector(
    folder: str | Path, history: HistoryConfig | None = None, model_cameras: Mapping[str, str] | None = None
) -> OnnxDetector:
    """folder: that `bevformer-ros export --format onnx` wrote. model_cameras: as of pipeline.load_detector.

    Raises ValueError that names the folder or file and what is wrong with it.
    """
    folder = Path(folder)
    model = ExportedModel.read(folder)
    cameras = model.config.cameras
    if model_cameras is not None and cameras not in (tuple(model_cameras), tuple(model_cameras.values())):
        raise ValueError(
            f"{folder} was written for the cameras {', '.join(cameras)}, the rig has {', '.join(model_cameras)}; "
            "write it again with `bevformer-ros export --rig`"
        )
    return OnnxDetector(folder, model, history)


def _normalised(plan: CameraPlan, image: NDArray[np.uint8], config: ImageConfig) -> NDArray[np.float32]:
    """(3, h, w). Resized by Pillow's bicubic, as in the official evaluation."""
    pixels = plan.rectified(image)
    if pixels.shape[1::-1] != plan.plan.size:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(picture.resize(plan.plan.size, Image.Resampling.BICUBIC))
    mean, deviation = np.array(config.mean, np.float32), np.array(config.deviation, np.float32)
    normalised: NDArray[np.float32] = (pixels.astype(np.float32) - mean) / deviation
    if plan.seen is not None:
        normalised *= plan.seen[..., None]  # zero is the mean colour
    return normalised.transpose(2, 0, 1)


def _proposals_in(outputs: Arrays) -> HostProposals | None:
    prefix = "proposal_"
    found = {name.removeprefix(prefix): array for name, array in outputs.items() if name.startswith(prefix)}
    return HostProposals(**found) if found else None


class _Function:
    """One ONNX file: arrays by name in, arrays by name out. What it does not read is left aside."""

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
        # A thread that waits would spin, in the way of the other functions' threads and of whoever shares the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._file = file
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a class for each kind, none of them documented
            raise ValueError(f"{file} cannot be loaded by ONNX Runtime: {error}") from error
        self._inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def require(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises ValueError where an input has another shape."""
        if self._inputs.get(name) != list(shape):
            raise ValueError(f"{self._file} takes {name} of {self._inputs.get(name)}, {MODEL_FILE} says {list(shape)}")

    def __call__(self, arrays: Arrays) -> Arrays:
        outputs = self._session.run(self._outputs, {name: arrays[name] for name in self._inputs})
        return dict(zip(self._outputs, outputs, strict=True))
