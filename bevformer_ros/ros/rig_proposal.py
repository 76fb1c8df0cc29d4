"""From what a survey found to a rig for a model, with what a person should know about each camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from bevformer_ros.config import BevFrameConfig, CameraConfig, RigConfig
from bevformer_ros.lens import unproject, virtual_pinhole
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.ros.node.rig_check import CameraView, angle_between, heading_of_name
from bevformer_ros.ros.rig_survey import FoundCamera, Survey
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS

# What the models have learned of the nuScenes cars: where the lidar is whose frame they think in, and what the cameras
# show. Focal lengths are shares of the image's width, the horizon is a share of its height.
_LIDAR_HEIGHT = 1.84
_LIDAR_BEHIND_FRONT_CAMERA = 0.76
_LIDAR_AHEAD_OF_AXLE = 0.94
_HORIZON = 0.545
_FOCAL = 0.79
_FOCAL_BEHIND = 0.505

_BESIDE_DEG = 25.0  # two cameras nearer to each other than this show the same
_FRONT_DEG = 60.0
_OVERLAP_DEG = 10.0
_WIDEST_PINHOLE_DEG = 100.0  # in place of a fisheye; a wider one shows its sides stretched and its middle small
_SENSIBLE_HEIGHTS = (0.7, 3.5)  # metres of cameras above ground
_SENSIBLE_FOCALS = (0.6, 1.6)  # against the model's own
_SAME_RATE = 0.9


@dataclass(frozen=True)
class ProposedCamera:
    """used: whether it is part of the rig, or stands in the file as a comment. remarks: for the file's reader."""

    config: CameraConfig
    used: bool
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """cameras: also those that the rig leaves out."""

    rig: RigConfig
    cameras: tuple[ProposedCamera, ...]
    bev_frame_remarks: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """view: through the lens. field_of_view_deg: of the pinhole in place of a fisheye, None for others. pinhole:
    (3, 3), intrinsics of what the network gets."""

    found: FoundCamera
    view: CameraView
    field_of_view_deg: float | None
    pinhole: NDArray[np.float64]
    model_camera: str
    rate: float

    @property
    def off_by(self) -> float:
        return angle_between(self.view.heading, heading_of_name(self.model_camera) or 0.0)


def propose(survey: Survey, model: ModelConfig, ground: float | None = None) -> Proposal:
    """A rig of the survey's cameras for a model.

    ground: z of the road in the base frame; None takes what tf says, or else that the base frame lies on it. Raises
    ValueError for a model whose cameras' names do not say where they look.
    """
    nameless = [name for name in model.cameras if heading_of_name(name) is None]
    if nameless:
        raise ValueError(f"the names of {model.name}'s cameras {', '.join(nameless)} do not say where they look")
    headings = [_heading(found) for found in survey.cameras]
    candidates = [_candidate(found, model, headings) for found in survey.cameras]
    candidates.sort(key=lambda one: (model.cameras.index(one.model_camera), one.off_by))
    beside = {one.found.name: _beside(one, candidates) for one in candidates}
    used = [one for one in candidates if not beside[one.found.name]]
    reference = _reference(used)
    offsets = {one.found.name: _offset_ms(one.found, reference.found) for one in candidates}
    height = (survey.ground or 0.0) if ground is None else ground
    cameras = tuple(
        ProposedCamera(
            _config(one, offsets[one.found.name], model),
            not beside[one.found.name],
            _remarks(one, reference, height, beside[one.found.name], offsets[one.found.name]),
        )
        for one in candidates
    )
    bev_frame, reasons = _bev_frame(used, height)
    rig = RigConfig(
        tuple(camera.config for camera in cameras if camera.used),
        reference.found.name,
        survey.base_frame,
        survey.fixed_frame,
        bev_frame,
    )
    absent = [name for name in model.cameras if name not in rig.model_cameras.values()]
    remarks = [f"nothing looks where {model.name} has {', '.join(absent)}"] if absent else []
    if ground is None and survey.ground is None:
        reasons.append("tf does not say where the road is: --ground, unless it is at z = 0 of the base frame")
    return Proposal(rig, cameras, tuple(reasons), (*remarks, *(f"left out: {text}" for text in survey.left_out)))


def _candidate(found: FoundCamera, model: ModelConfig, headings: Sequence[float]) -> _Candidate:
    """headings: of all cameras, degrees."""
    view = CameraView(found.name, _heading(found), _pitch(found), _field_of_view(found))
    nearest = min(model.cameras, key=lambda name: angle_between(view.heading, heading_of_name(name) or 0.0))
    field_of_view_deg = None
    if found.lens.model == "equidistant":
        field_of_view_deg = round(min(view.fov, _pinhole_width(view.heading, headings, _trained_focal(nearest))), 1)
    pinhole = virtual_pinhole(found.intrinsics, found.size[0], field_of_view_deg)
    steps = np.diff(np.unique(found.stamps_ns))
    rate = SECOND_NS / float(np.median(steps)) if len(steps) else 0.0
    return _Candidate(found, view, field_of_view_deg, pinhole, nearest, rate)


def _pinhole_width(heading: float, headings: Sequence[float], trained_focal: float) -> float:
    """Degrees, of a pinhole in the place of a fisheye: what the model knows, or more where there would be a gap to the
    next camera."""
    turns = sorted((other - heading) % 360 for other in headings if other != heading) or [360.0]
    gap = max(turns[0], 360.0 - turns[-1])
    trained = 2 * np.degrees(np.arctan(0.5 / trained_focal))
    return float(np.clip(gap + _OVERLAP_DEG, trained, _WIDEST_PINHOLE_DEG))


def _trained_focal(model_camera: str) -> float:
    return _FOCAL_BEHIND if heading_of_name(model_camera) == 180.0 else _FOCAL


def _heading(found: FoundCamera) -> float:
    """Degrees to the left of forward."""
    axis = found.base_from_camera[:3, 2]
    return float(np.degrees(np.arctan2(axis[1], axis[0])))


def _pitch(found: FoundCamera) -> float:
    """Degrees upwards."""
    return float(np.degrees(np.arcsin(np.clip(found.base_from_camera[2, 2], -1, 1))))


def _field_of_view(found: FoundCamera) -> float:
    """Degrees, between what the middle of the left and the right edge show."""
    row = found.intrinsics[1, 2]
    rays = unproject(found.lens, found.intrinsics, np.array([[-0.5, row], [found.size[0] - 0.5, row]]))
    angles = np.arctan2(np.abs(rays[:, 0]), rays[:, 2])
    return float(np.degrees(np.nan_to_num(angles, nan=found.lens.widest_angle).sum()))


def _beside(one: _Candidate, candidates: Sequence[_Candidate]) -> str:
    """The camera that shows what this one does and more of it; of equal ones the first. Empty where none does."""
    for other in candidates:
        if other is one or other.model_camera != one.model_camera:
            continue
        near = angle_between(one.view.heading, other.view.heading) < _BESIDE_DEG
        if near and (other.view.fov, one.found.name) > (one.view.fov, other.found.name):
            return other.found.name
    return ""


def _reference(used: Sequence[_Candidate]) -> _Candidate:
    """Among the slowest, since each of its images asks for one of every other, that which looks most nearly ahead."""
    slowest = min(one.rate for one in used)
    slow = [one for one in used if one.rate * _SAME_RATE <= slowest]
    return min(slow, key=lambda one: abs(one.view.heading))


def _offset_ms(camera: FoundCamera, reference: FoundCamera) -> float:
    """Median distance of its images from the reference's nearest ones."""
    stamps = np.asarray(camera.stamps_ns, np.int64)
    nearest = [stamps[np.argmin(np.abs(stamps - stamp))] - stamp for stamp in reference.stamps_ns]
    return round(float(np.median(nearest)) / MILLISECOND_NS, 1)


def _config(one: _Candidate, offset_ms: float, model: ModelConfig) -> CameraConfig:
    found = one.found
    return CameraConfig(
        found.name,
        found.image_topic,
        found.camera_info_topic,
        found.compressed,
        found.rectified,
        crop=_crop(one, model.image.source_size),
        model_camera=one.model_camera,
        field_of_view_deg=one.field_of_view_deg,
        exposure_offset_ms=offset_ms,
    )


def _crop(one: _Candidate, source_size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """As high for its width as the model's images, with the horizon where theirs is; None where nothing is to cut."""
    width, height = one.found.size
    wanted = round(width * source_size[1] / source_size[0])
    if wanted >= height:
        return None
    focal, center = one.pinhole[1, 1], one.pinhole[1, 2]
    horizon = center + focal * np.tan(np.radians(one.view.pitch))
    top = int(np.clip(round(horizon - _HORIZON * wanted), 0, height - wanted))
    return 0, top, width, top + wanted


def _remarks(one: _Candidate, reference: _Candidate, ground: float, beside: str, offset_ms: float) -> tuple[str, ...]:
    found, view = one.found, one.view
    above = found.base_from_camera[2, 3] - ground
    angles = f"heading {view.heading:+.0f}°, pitch {view.pitch:+.0f}°, field of view {view.fov:.0f}°"
    remarks = [f"{angles}, {above:.2f} m above ground, {found.size[0]} x {found.size[1]}, {one.rate:.1f} Hz"]
    if one.field_of_view_deg is not None:
        remarks.append(f"a fisheye; the network gets a pinhole's image of {one.field_of_view_deg:g}° in its place")
    larger = one.pinhole[0, 0] / found.size[0] / _trained_focal(one.model_camera)
    remarks.append(f"things look {larger:.2f} times as large as the model knows them from {one.model_camera}")
    if not _SENSIBLE_FOCALS[0] <= larger <= _SENSIBLE_FOCALS[1]:
        remarks.append("CHECK: that is far from what it has learned; expect less of this camera")
    if one.off_by > _BESIDE_DEG:
        remarks.append(f"CHECK: it looks {one.off_by:.0f}° beside {one.model_camera}, the nearest that there is")
    if not _SENSIBLE_HEIGHTS[0] <= above <= _SENSIBLE_HEIGHTS[1]:
        remarks.append("CHECK: no camera of a car is so high above ground; see --ground, and tf")
    if one.rate * _SAME_RATE > reference.rate or one.rate < reference.rate * _SAME_RATE:
        remarks.append(f"CHECK: its rate is not that of the reference camera {reference.found.name}")
    elif reference.rate and abs(offset_ms) > 500 / reference.rate * _SAME_RATE:
        remarks.append("CHECK: it exposes half a period from the reference camera; the nearest image may be either")
    if beside:
        remarks.append(f"left out: {beside} shows the same and more; without the # both stand for {one.model_camera}")
    return tuple(remarks)


def _bev_frame(used: Sequence[_Candidate], ground: float) -> tuple[BevFrameConfig, list[str]]:
    """From the base frame: as far above the road and behind the front cameras as the nuScenes lidar is."""
    ahead = [one.found.base_from_camera[0, 3] for one in used if abs(one.view.heading) < _FRONT_DEG]
    forward = max(ahead) - _LIDAR_BEHIND_FRONT_CAMERA if ahead else _LIDAR_AHEAD_OF_AXLE
    along = f"{_LIDAR_BEHIND_FRONT_CAMERA} m behind the foremost camera" if ahead else "0.94 m ahead of the rear axle"
    reasons = [
        "where the model believes itself to be, as the nuScenes lidar: x right, y forward,",
        f"{_LIDAR_HEIGHT} m above the road, which is at z = {ground:.2f}, and {along}",
    ]
    translation = (round(float(forward), 3), 0.0, round(ground + _LIDAR_HEIGHT, 3))
    return BevFrameConfig(translation, (0.0, 0.0, -1.5707963267948966)), reasons


def yaml_text(proposal: Proposal, title: str) -> str:
    """The rig as a file, with the remarks as comments."""
    lines = [f"# {line}" for line in (title, *proposal.remarks, "Every key: docs/rig.md.")]
    lines.append("cameras:")
    for camera in proposal.cameras:
        lines += [f"  # {remark}" for remark in camera.remarks]
        lead = "  " if camera.used else "  # "
        entries = {key: value for key, value in asdict(camera.config).items() if _is_said(key, value)}
        lines += [
            f"{lead}{'- ' if index == 0 else '  '}{key}: {_scalar(value)}"
            for index, (key, value) in enumerate(entries.items())
        ]
    rig = proposal.rig
    lines += [f"{key}: {_scalar(getattr(rig, key))}" for key in ("reference_camera", "base_frame", "fixed_frame")]
    lines += [f"# {remark}" for remark in proposal.bev_frame_remarks]
    lines += ["bev_frame:", f"  translation: {_scalar(rig.bev_frame.translation)}"]
    lines += [f"  roll_pitch_yaw: {_scalar(rig.bev_frame.roll_pitch_yaw)}"]
    return "\n".join(lines) + "\n"


def _is_said(key: str, value: Any) -> bool:
    """What is left at its default is not, but for the offset, which was measured."""
    return key == "exposure_offset_ms" or value not in (None, False, 0.0)


def _scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
