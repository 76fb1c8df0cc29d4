"""What calibration and mounting look like: headings to read, and what no sensible car has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.ros.node.camera_health import Level, Problem
from bevformer_ros.types import CameraImage, SurroundFrame

_STEEPEST_DEG = 60.0  # of an optical axis; parking cameras look down by 45
FARTHEST_HEADING_DEG = 75.0  # of a camera from what its name says
_GRID = 41
_HEIGHT_ABOVE_FLOOR = 0.5  # share of the BEV range at which a cell must be seen
# What the names of cameras say about where they look, degrees to the left of forward.
_HEADINGS = (
    (("front", "left"), 55.0),
    (("front", "right"), -55.0),
    (("back", "left"), 110.0),
    (("rear", "left"), 110.0),
    (("back", "right"), -110.0),
    (("rear", "right"), -110.0),
    (("front",), 0.0),
    (("back",), 180.0),
    (("rear",), 180.0),
)


@dataclass(frozen=True)
class CameraView:
    """Degrees. heading: of the optical axis, to the left of the BEV frame's y (forward). pitch: upwards. fov: the
    image's width."""

    name: str
    heading: float
    pitch: float
    fov: float

    def __str__(self) -> str:
        return f"{self.name} heading {self.heading:+.0f}°, pitch {self.pitch:+.0f}°, field of view {self.fov:.0f}°"


def view_of(camera: CameraImage) -> CameraView:
    axis = geometry.invert(camera.camera_from_bev)[:3, 2]
    return CameraView(
        camera.name,
        heading=float(np.degrees(np.arctan2(-axis[0], axis[1]))),
        pitch=float(np.degrees(np.arcsin(np.clip(axis[2], -1, 1)))),
        fov=float(np.degrees(2 * np.arctan(camera.image.shape[1] / 2 / camera.rectified_intrinsics[0, 0]))),
    )


def suspicions(
    frame: SurroundFrame, base_from_bev: NDArray[np.float64], camera_frames: dict[str, str]
) -> list[Problem]:
    """camera_frames: tf frame of each camera's images."""
    of_bev_frame = _of_bev_frame(base_from_bev)
    found = list(of_bev_frame)
    for camera in frame.cameras:
        if camera is None:
            continue
        view = view_of(camera)
        if abs(view.pitch) > _STEEPEST_DEG:
            text = (
                f"looks {'up' if view.pitch > 0 else 'down'} by {abs(view.pitch):.0f}°: is "
                f"{camera_frames[camera.name]!r} the optical frame (z forward, x right, y down)? Publish images with "
                "the optical frame's frame_id"
            )
            found.append(Problem(camera.name, "tilted", Level.WARN, text))
        elif not of_bev_frame and _heading_error(view) > FARTHEST_HEADING_DEG:
            text = (
                f"looks {view.heading:+.0f}° to the left of forward, which its name belies: are cameras exchanged, or "
                f"is {camera_frames[camera.name]!r} mounted differently in tf?"
            )
            found.append(Problem(camera.name, "heading", Level.WARN, text))
    return found


def _of_bev_frame(base_from_bev: NDArray[np.float64]) -> list[Problem]:
    """The model wants y forward and z up, as the nuScenes lidar has it."""
    forward, up = base_from_bev[:3, :3].T @ (1.0, 0.0, 0.0), base_from_bev[:3, :3].T @ (0.0, 0.0, 1.0)
    if forward[1] > 0.7 and up[2] > 0.7:
        return []
    turned = np.degrees(np.arctan2(-forward[0], forward[1]))
    text = (
        f"forward of the base frame (+x) lies {turned:+.0f}° to the left of the BEV frame's +y, where the model "
        "expects it, so boxes are nonsense: with the base frame as its parent, bev_frame.roll_pitch_yaw is "
        "[0, 0, -1.5708]"
    )
    return [Problem("", "bev_frame", Level.WARN, text)]


def heading_of_name(name: str) -> float | None:
    """Where a camera of this name should look, degrees to the left of forward; None if it does not say."""
    words = name.lower()
    return next((heading for parts, heading in _HEADINGS if all(part in words for part in parts)), None)


def angle_between(first: float, second: float) -> float:
    """Of two headings in degrees, 0 to 180."""
    return abs((first - second + 180) % 360 - 180)


def _heading_error(view: CameraView) -> float:
    expected = heading_of_name(view.name)
    return 0.0 if expected is None else angle_between(view.heading, expected)


def unseen_share(frame: SurroundFrame, bev_range: tuple[float, float, float, float, float, float]) -> float:
    """Share of the BEV range (x, y, z minima, then maxima) whose cells' middles no camera sees."""
    x, y = (np.linspace(bev_range[axis], bev_range[axis + 3], _GRID) for axis in range(2))
    height = bev_range[2] + _HEIGHT_ABOVE_FLOOR * (bev_range[5] - bev_range[2])
    points = np.stack(np.meshgrid(x, y, [height]), axis=-1).reshape(-1, 3)
    seen = np.zeros(len(points), np.bool_)
    for camera in frame.cameras:
        if camera is not None:
            seen |= camera.sees(points)
    return float(1 - seen.mean())


def description(frame: SurroundFrame, bev_range: tuple[float, float, float, float, float, float]) -> str:
    """For the log, at the start."""
    views = "; ".join(str(view_of(camera)) for camera in frame.cameras if camera is not None)
    return f"{views}. No camera sees {unseen_share(frame, bev_range):.0%} of the BEV range"
