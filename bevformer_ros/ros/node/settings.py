"""The detector's settings: one table of names, defaults, ranges and descriptions, from which all else follows."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.choices import Backend, PrecisionChoice
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.resources import DEFAULT_RIG
from bevformer_ros.ros.node.health import HealthLimits
from bevformer_ros.ros.node.synchronizer import SynchronizerConfig
from bevformer_ros.taxonomy import CLASS_NAMES, one_per_class
from bevformer_ros.tracking.config import TrackingConfig
from bevformer_ros.types import MILLISECOND_NS

DEFAULT_SCORE_THRESHOLD = 0.2
DEVICE_PATTERN = "auto, cpu, cuda or cuda:N"


def _parameter(
    default: Any,
    description: str,
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
    by_class: bool = False,
) -> Any:
    """live: may change at any time; others only while the node is unconfigured, since configuring reads them.
    by_class: a number or one for each class."""
    metadata = {
        "description": description,
        "within": within,
        "choices": choices,
        "live": live,
        "by_class": by_class,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What a detector is told: parameters of the node, options of the commands."""

    rig: str = _parameter(DEFAULT_RIG, "cameras and frames: a name in config/rigs or the path of a rig YAML")
    model: str = _parameter("demo", "network: a name in weights or config/models, or a path of .safetensors or YAML")
    weights: str = _parameter("", "path of weights (.pth or .safetensors); empty for the model's own, or random ones")
    backend: Backend = _parameter(  # noqa: RUF009 (a field, as the others)
        "torch",
        "what runs the network: torch, or, without torch and on the CPU, onnxruntime, for which model is a folder that "
        "`bevformer-ros export` wrote",
        choices=get_args(Backend),
    )
    device: str = _parameter("auto", f"where the network runs: {DEVICE_PATTERN}; auto takes a GPU if there is one")
    precision: PrecisionChoice = _parameter(  # noqa: RUF009 (a field, as the others)
        "auto",
        "arithmetic of the network; auto takes the fastest here: bfloat16 or float16 on a GPU, on a CPU bfloat16 if it "
        "has units for it",
        choices=get_args(PrecisionChoice),
    )
    on_cuda_oom: str = _parameter(
        "use_less_memory",
        "after a set for which the GPU's memory did not suffice: use_less_memory goes on without CUDA graphs, slower, "
        "drop as before",
        choices=("use_less_memory", "drop"),
    )
    autostart: bool = _parameter(True, "configure and activate by itself; false waits for a lifecycle manager")
    output_frame: str = _parameter("", "tf frame of the published boxes; empty for the rig's base frame")
    score_threshold: float | tuple[float, ...] = _parameter(
        -1.0,
        "boxes with a lower score are not published; may change while running; one number for all classes or one for "
        f"each: {', '.join(CLASS_NAMES)}; a negative one takes what the weights recommend, or "
        f"{DEFAULT_SCORE_THRESHOLD} where they say nothing",
        (-1.0, 1.0),
        live=True,
        by_class=True,
    )
    minimum_cameras: int = _parameter(
        0, "a set with fewer images is dropped, with more it is used; 0 for all cameras of the rig", (0, 64)
    )
    maximum_image_pixel_ratio: float = _parameter(
        8.0,
        "an image of more than so many times the pixels that its CameraInfo describes is not decoded",
        (1.0, 1000.0),
    )
    sync_tolerance_ms: float = _parameter(
        40.0, "farthest that an image may lie from its expected stamp; less than half a frame period", (0.1, 1000.0)
    )
    sync_accept_ms: float = _parameter(
        10.0, "an image this close to its expected stamp is taken without waiting for a nearer one", (0.0, 1000.0)
    )
    sync_timeout_ms: float = _parameter(200.0, "how long a set waits for missing cameras", (1.0, 10000.0))
    sync_queue_size: int = _parameter(10, "images kept per camera until they find their set", (2, 1000))
    image_reliability: str = _parameter(
        "best_effort",
        "QoS of the image and CameraInfo subscriptions; reliable receives nothing from a best-effort publisher",
        choices=("best_effort", "reliable"),
    )
    publish_rate_limit: float = _parameter(
        0.0, "sets a second that are worked on at most, the others are skipped; 0 for all", (0.0, 1000.0)
    )
    skip_if_unsubscribed: bool = _parameter(
        False, "skip sets while nobody subscribes to boxes, tracks, markers or overlay"
    )
    jpeg_decoder: str = _parameter(
        "cpu",
        "what decodes sets of JPEGs: cpu, in threads, or cuda, which needs torchvision for CUDA",
        choices=("cpu", "cuda"),
    )
    image_depth: int = _parameter(5, "QoS history depth of the image and CameraInfo subscriptions", (1, 1000))
    transform_timeout_ms: float = _parameter(
        200.0, "how long a set waits for tf and CameraInfo that are late", (0.0, 10000.0)
    )
    history_spacing_s: float = _parameter(
        HistoryConfig.minimum_spacing_s, "frames closer to the last remembered one are not remembered", (0.01, 10.0)
    )
    history_maximum_gap_s: float = _parameter(
        HistoryConfig.maximum_gap_s, "a longer pause between sets makes the history begin anew", (0.1, 60.0)
    )
    history_maximum_speed_mps: float = _parameter(
        HistoryConfig.maximum_speed_mps,
        "a faster motion of the car between sets makes the history begin anew",
        (0.1, 1000.0),
    )
    history_maximum_turn_rate_rps: float = _parameter(
        HistoryConfig.maximum_turn_rate_rps,
        "a faster turn of the car between sets, in rad/s, makes the history begin anew",
        (0.01, 100.0),
    )
    history_pose_noise_m: float = _parameter(
        HistoryConfig.pose_noise_m,
        "how much beyond that speed localisation may correct the position at once",
        (0.0, 100.0),
    )
    history_pose_noise_rad: float = _parameter(
        HistoryConfig.pose_noise_rad,
        "how much beyond that turn localisation may correct the heading at once",
        (0.0, 3.15),
    )
    history_calibration_tolerance: float = _parameter(
        HistoryConfig.intrinsics_tolerance,
        "a larger change of a focal length or principal point, relative to the focal length, makes the history begin "
        "anew",
        (0.0, 1.0),
    )
    history_mount_tolerance_m: float = _parameter(
        HistoryConfig.mount_tolerance_m,
        "a larger change of a camera's place on the car makes the history begin anew",
        (0.0, 100.0),
    )
    history_mount_tolerance_rad: float = _parameter(
        HistoryConfig.mount_tolerance_rad,
        "a larger change of a camera's direction on the car makes the history begin anew",
        (0.0, 3.15),
    )
    transform_cache_s: float = _parameter(10.0, "how long tf is remembered", (1.0, 600.0))
    health_timeout_s: float = _parameter(
        1.5,
        "nothing detected for so long is an ERROR in /diagnostics; a slower network gets 2.5 times its period",
        (0.1, 600.0),
    )
    health_maximum_age_s: float = _parameter(
        1.0, "boxes that are older when they are published, counted from their stamp, are a WARN", (0.01, 600.0)
    )
    tracking: bool = _parameter(False, "follow boxes over time and publish tracks")
    tracking_config: str = _parameter("", "YAML of the tracker, see docs/tracking.md; empty for its defaults")

    def __post_init__(self) -> None:
        for name in SETTINGS:
            if wrong := fault(name, getattr(self, name)):
                raise ValueError(wrong)

    def health_limits(self) -> HealthLimits:
        return HealthLimits(self.health_timeout_s, self.health_maximum_age_s)

    def history(self) -> HistoryConfig:
        return HistoryConfig(
            minimum_spacing_s=self.history_spacing_s,
            maximum_gap_s=self.history_maximum_gap_s,
            maximum_speed_mps=self.history_maximum_speed_mps,
            maximum_turn_rate_rps=self.history_maximum_turn_rate_rps,
            pose_noise_m=self.history_pose_noise_m,
            pose_noise_rad=self.history_pose_noise_rad,
            intrinsics_tolerance=self.history_calibration_tolerance,
            mount_tolerance_m=self.history_mount_tolerance_m,
            mount_tolerance_rad=self.history_mount_tolerance_rad,
        )

    def tracker_config(self) -> TrackingConfig:
        """Raises ValueError for a file that says anything else."""
        return load_yaml(TrackingConfig, self.tracking_config) if self.tracking_config else TrackingConfig()

    def synchronizer(self, rig: RigConfig) -> SynchronizerConfig:
        """Raises ValueError where the values contradict each other or the rig."""
        names = [camera.name for camera in rig.cameras]
        return SynchronizerConfig(
            offsets_ns=tuple(round(camera.exposure_offset_ms * MILLISECOND_NS) for camera in rig.cameras),
            reference=names.index(rig.reference_camera),
            tolerance_ns=round(self.sync_tolerance_ms * MILLISECOND_NS),
            accept_ns=round(self.sync_accept_ms * MILLISECOND_NS),
            timeout_ns=round(self.sync_timeout_ms * MILLISECOND_NS),
            minimum_cameras=self.minimum_cameras or len(names),
            queue_size=self.sync_queue_size,
            repeat_ns=tuple(round(camera.repeat_ms * MILLISECOND_NS) for camera in rig.cameras),
        )


SETTINGS: dict[str, Field[Any]] = {entry.name: entry for entry in fields(Settings)}


def fault(name: str, value: Any) -> str:
    """What is wrong with a value of the right type; empty where nothing is. Whole numbers are numbers."""
    entry = SETTINGS[name]
    choices, within = entry.metadata["choices"], entry.metadata["within"]
    if choices and value not in choices:
        return f"{name} is {value!r}, expected one of {', '.join(choices)}"
    if entry.metadata["by_class"]:
        return _fault_by_class(name, value, within)
    if within is not None and (wrong := fault_of_number(name, value, within)):
        return wrong
    if name == "output_frame" and value.startswith("/"):
        return f"output_frame is {value!r}, expected a tf frame without a leading slash: {value.lstrip('/')!r}"
    if name == "device" and not _is_device(value):
        return f"device is {value!r}, expected {DEVICE_PATTERN}"
    return ""


def _fault_by_class(name: str, value: Any, within: tuple[float, float]) -> str:
    try:
        numbers = one_per_class(value)
    except ValueError as error:
        return f"{name}: {error}"
    return next(filter(None, (fault_of_number(name, number, within) for number in numbers)), "")


def fault_of_number(name: str, value: Any, within: tuple[float, float]) -> str:
    """As fault()."""
    if type(value) not in (int, float):
        return f"{name} is {value!r}, expected a number"
    low, high = within
    return "" if low <= value <= high else f"{name} is {value}, expected {low:g} to {high:g}"


def type_text(entry: Field[Any]) -> str:
    text = {str: "string", float: "number", int: "integer", bool: "bool"}[type(entry.default)]
    return f"{text} or {len(CLASS_NAMES)}" if entry.metadata["by_class"] else text


def _is_device(value: str) -> bool:
    return value in ("auto", "cpu", "cuda") or (value.startswith("cuda:") and value[5:].isdigit())


def default_text(entry: Field[Any]) -> str:
    if isinstance(entry.default, bool):
        return str(entry.default).lower()
    return str(entry.default) if entry.default != "" else "empty"


def range_text(entry: Field[Any]) -> str:
    if entry.metadata["within"] is not None:
        low, high = entry.metadata["within"]
        return f"{low:g} to {high:g}"
    return ", ".join(entry.metadata["choices"])
