"""What can go wrong around the node, and what it says then: the rows of docs/faults.md, each tried by a test.

python test/fault_table.py > docs/faults.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from faulty_car import JPEG_CAMERA, Exposure, FaultyCar, car_rig
from sensor_msgs.msg import CompressedImage
from support import SMALLEST

from bevformer_ros.config import BevFrameConfig, RigConfig, load_yaml
from bevformer_ros.inference.precision import resolve_device
from bevformer_ros.model.checkpoint import save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.ros.detector_loading import detector_for
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.types import SECOND_NS

LEVELS = {DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR", DiagnosticStatus.STALE: "STALE"}


@dataclass(frozen=True)
class Fault:
    """what: in a person's words. camera: which one fails, empty for the detector. code: of the problem.

    inflict, heal: what happens to the car. says: parts of the line in the log. level: of the camera's diagnostics,
    or the detector's. remedy: for the documentation.
    """

    what: str
    camera: str
    code: str
    inflict: Callable[[FaultyCar], None]
    heal: Callable[[FaultyCar], None]
    says: tuple[str, ...]
    remedy: str
    level: bytes = DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Phase:
    """Faults that happen at once. level: of the detector meanwhile; OK again afterwards."""

    name: str
    faults: tuple[Fault, ...]
    level: bytes = DiagnosticStatus.WARN


def altered(
    what: str, camera: str, code: str, alter: Callable[[Exposure], None], says: tuple[str, ...], remedy: str
) -> Fault:
    """A fault in what a camera sends."""
    return Fault(
        what,
        camera,
        code,
        lambda car: car.alter.update({camera: alter}),
        lambda car: car.alter.pop(camera),
        says,
        remedy,
    )


def setting(part: str, **values: object) -> Callable[[Exposure], None]:
    def alter(exposure: Exposure) -> None:
        for name, value in values.items():
            setattr(getattr(exposure, part), name, value)

    return alter


def nothing(exposure: Exposure) -> None:
    exposure.image = None


def uninformed(exposure: Exposure) -> None:
    exposure.info = None


def frozen() -> Callable[[Exposure], None]:
    stamps = []

    def alter(exposure: Exposure) -> None:
        stamps.append(exposure.image.header.stamp)
        exposure.image.header.stamp = stamps[0]

    return alter


def unstamped(exposure: Exposure) -> None:
    exposure.image.header.stamp.sec = exposure.image.header.stamp.nanosec = 0


def half(exposure: Exposure) -> None:
    exposure.image.data = exposure.image.data[: len(exposure.image.data) // 2]


def giant(exposure: Exposure) -> None:
    data = bytes(exposure.image.data)
    place = data.index(b"\xff\xc0") + 5
    exposure.image.data = data[:place] + struct.pack(">HH", 65500, 65500) + data[place + 4 :]


def gigantic(exposure: Exposure) -> None:
    exposure.image.width, exposure.image.height = 1600, 900


def odd_yuv(exposure: Exposure) -> None:
    exposure.image.encoding, exposure.image.width, exposure.image.step = "yuv422", 159, 318
    exposure.info.width = 159


def smaller(exposure: Exposure) -> None:
    exposure.image.width, exposure.image.height = 80, 45


def of_k(**changes: float) -> Callable[[Exposure], None]:
    """Elements of K by their place, k0 to k8."""

    def alter(exposure: Exposure) -> None:
        k = list(exposure.info.k)
        for name, value in changes.items():
            k[int(name[1:])] = value
        exposure.info.k = k

    return alter


def misframed(frame_id: str) -> Callable[[Exposure], None]:
    def alter(exposure: Exposure) -> None:
        exposure.image.header.frame_id = frame_id

    return alter


def link_frame(car: FaultyCar) -> None:
    car.mount("CAM_BACK_RIGHT", optical=False)
    car.alter["CAM_BACK_RIGHT"] = misframed("CAM_BACK_RIGHT_link")


def unalter(*cameras: str) -> Callable[[FaultyCar], None]:
    def heal(car: FaultyCar) -> None:
        for camera in cameras:
            car.alter.pop(camera)

    return heal


def stranger_instead_of_front_left(car: FaultyCar) -> None:
    car.stop_publishing("CAM_FRONT_LEFT")
    car.let_a_stranger_publish("CAM_FRONT_LEFT", CompressedImage)


def front_left_again(car: FaultyCar) -> None:
    car.dismiss_the_stranger()
    car.publish_on("CAM_FRONT_LEFT")


AT_START = Phase(
    "from the start",
    (
        Fault(
            "the topic's name is mistyped",
            "CAM_FRONT_RIGHT",
            "topic",
            lambda car: car.publish_on("CAM_FRONT_RIGHT", "/cam_front_rihgt/image_raw"),
            lambda car: car.publish_on("CAM_FRONT_RIGHT"),
            ("nobody publishes /cam_front_right/image_raw", "nearest", "/cam_front_rihgt/image_raw"),
            "correct `cameras.<name>.image_topic`, the rig or a remapping; the line names the nearest topics",
        ),
        Fault(
            "the topic carries CompressedImage, the rig says Image (or the reverse)",
            "CAM_FRONT_LEFT",
            "topic",
            stranger_instead_of_front_left,
            front_left_again,
            ("is published as sensor_msgs/msg/CompressedImage", "cameras.CAM_FRONT_LEFT.compressed to true"),
            "set `cameras.<name>.compressed`, or `compressed` in the rig",
        ),
        altered(
            "no CameraInfo has ever come",
            "CAM_BACK",
            "no_camera_info",
            uninformed,
            ("CameraInfo", "/cam_back/camera_info (cameras.CAM_BACK.camera_info_topic)"),
            "publish a CameraInfo with the images, on the topic of the rig",
        ),
        Fault(
            "tf does not know the camera's frame",
            "CAM_BACK_RIGHT",
            "no_transform",
            lambda car: None,  # not mounted yet
            lambda car: car.mount("CAM_BACK_RIGHT"),
            ("no frame 'CAM_BACK_RIGHT' (frame_id of the images)", "only"),
            "start the publisher of static transforms (robot_state_publisher); the line names the frames that exist",
        ),
    ),
)
PHASES = (
    Phase(
        "stamps and silence",
        (
            altered(
                "images stop",
                "CAM_BACK",
                "no_images",
                nothing,
                ("no images for", "/cam_back/image_raw", "check the camera, its driver"),
                "check the camera, its driver and the network",
            ),
            altered(
                "stamps stand still",
                "CAM_BACK_LEFT",
                "frozen",
                frozen(),
                ("have the stamp", "restart the driver"),
                "restart the driver",
            ),
            altered(
                "stamps are 0",
                "CAM_BACK_RIGHT",
                "unstamped",
                unstamped,
                ("stamp 0", "the driver must set header.stamp"),
                "the driver must set `header.stamp`",
            ),
            altered(
                "stamps an hour ahead",
                "CAM_FRONT_LEFT",
                "unmatched",
                lambda exposure: exposure.shift(3600.0),
                ("s ahead of", "synchronise its clock"),
                "synchronise the clock of the camera's computer (PTP, chrony)",
            ),
            altered(
                "stamps 0.25 s late",
                "CAM_FRONT_RIGHT",
                "unmatched",
                lambda exposure: exposure.shift(-0.25),
                ("s behind", "sync_tolerance_ms"),
                "set `cameras.<name>.exposure_offset_ms`, or raise `sync_tolerance_ms` or `sync_timeout_ms`",
            ),
        ),
    ),
    Phase(
        "images",
        (
            altered(
                "a message holds fewer bytes than it says",
                "CAM_BACK",
                "undecodable",
                half,
                ("image holds", "/cam_back/image_raw"),
                "the driver sends incomplete images; look at its log",
            ),
            altered(
                "an encoding that nobody knows",
                "CAM_FRONT_LEFT",
                "undecodable",
                setting("image", encoding="nonsense"),
                ("nonsense", "cv_bridge"),
                "let the driver send one of the encodings in docs/node.md",
            ),
            altered(
                "yuv422 of odd width",
                "CAM_FRONT_RIGHT",
                "undecodable",
                odd_yuv,
                ("yuv422 is 159 pixels wide", "even width"),
                "let the driver send an even width",
            ),
            altered(
                "half a JPEG or PNG",
                JPEG_CAMERA,
                "undecodable",
                half,
                ("JPEG of", "ends early"),
                "the driver or the network loses data; see the DDS profile in docs/node.md",
            ),
            altered(
                "an image of another size than its CameraInfo's",
                "CAM_BACK_RIGHT",
                "wrong_size",
                smaller,
                ("image of 80 x 45 pixels", "describes 160 x 90", "publish the CameraInfo that belongs to the image"),
                "publish the CameraInfo that belongs to the image; a resizing node has to scale it",
            ),
        ),
    ),
    Phase(
        "calibration",
        (
            altered(
                "K is all zero",
                "CAM_BACK",
                "uncalibrated",
                setting("info", k=[0.0] * 9),
                ("CameraInfo.k", "is all zero; calibrate the camera"),
                "calibrate the camera",
            ),
            altered(
                "K holds NaN or infinity",
                "CAM_BACK_RIGHT",
                "unusable_camera_info",
                of_k(k0=float("nan")),
                ("holds nan", "calibrate the camera again"),
                "calibrate the camera again",
            ),
            altered(
                "K has another last element than 1",
                "CAM_FRONT_LEFT",
                "unusable_camera_info",
                of_k(k8=0.0),
                ("last row", "expected [0, 0, 1]"),
                "calibrate the camera again",
            ),
            altered(
                "the principal point lies outside the image, or a focal length is no camera's",
                "CAM_FRONT_RIGHT",
                "unusable_camera_info",
                of_k(k2=400.0),
                ("principal point at 400", "outside the image of 160 x 90"),
                "calibrate the camera at the size that it publishes",
            ),
            altered(
                "a header of a JPEG claims a giant image",
                JPEG_CAMERA,
                "undecodable",
                giant,
                ("image of 65500 x 65500 pixels",),
                "the data are damaged: see above; nothing was decoded or allocated",
            ),
        ),
    ),
    Phase(
        "sizes",
        (
            altered(
                "an image of more than 8 times the pixels of its CameraInfo",
                "CAM_BACK",
                "undecodable",
                gigantic,
                ("image of 1600 x 900 pixels, more than 8 times the 160 x 90", "maximum_image_pixel_ratio"),
                "the data are damaged, or the CameraInfo is another camera's; or raise `maximum_image_pixel_ratio`",
            ),
        ),
    ),
    Phase(
        "lenses and frames",
        (
            altered(
                "a lens model that nobody here knows (omnidirectional)",
                "CAM_BACK",
                "unusable_camera_info",
                setting("info", distortion_model="omnidirectional"),
                ("'omnidirectional'", "rectified: true"),
                "rectify the images and set `rectified` in the rig",
            ),
            altered(
                "distortion that folds the image over",
                "CAM_FRONT_LEFT",
                "unusable_camera_info",
                setting("info", distortion_model="plumb_bob", d=[-9.0, 0.0, 0.0, 0.0, 0.0]),
                ("folds the image", "calibrate the camera again"),
                "calibrate the camera again",
            ),
            altered(
                "the images' frame_id is mistyped",
                JPEG_CAMERA,
                "no_transform",
                misframed("CAM_BACK_LFT"),
                ("no frame 'CAM_BACK_LFT' (frame_id of the images)", "did you mean"),
                "correct the driver's frame_id, or the URDF",
            ),
            altered(
                "the images have no frame_id",
                "CAM_FRONT_RIGHT",
                "no_transform",
                misframed(""),
                ("empty", "/cam_front_right/image_raw"),
                "set the driver's frame_id to the camera's optical frame",
            ),
            Fault(
                "the images are in the camera's body frame (x forward), not in its optical frame",
                "CAM_BACK_RIGHT",
                "tilted",
                link_frame,
                unalter("CAM_BACK_RIGHT"),
                ("looks up by 90", "is 'CAM_BACK_RIGHT_link' the optical frame"),
                "publish the images with the optical frame's frame_id (z forward, x right, y down)",
                DiagnosticStatus.WARN,
            ),
        ),
    ),
)


def all_altered(alter: Callable[[], Callable[[Exposure], None]]) -> Callable[[FaultyCar], None]:
    def inflict(car: FaultyCar) -> None:
        car.alter.update({camera.name: alter() for camera in car.rig.cameras})

    return inflict


def heal_all(car: FaultyCar) -> None:
    car.alter.clear()


def jitter() -> Callable[[Exposure], None]:
    """K that changes by 3 % with every set, in all cameras alike."""
    count = iter(range(10**9))

    def alter(exposure: Exposure) -> None:
        exposure.info.k = [value * (1.03 if next(count) // 9 % 2 else 1.0) for value in exposure.info.k[:8]] + [1.0]

    return alter


def paused(car: FaultyCar) -> None:
    car.clock = False
    all_altered(lambda: nothing)(car)


def resumed(car: FaultyCar) -> None:
    car.clock = True
    heal_all(car)


def foreign_arm(car: FaultyCar) -> None:
    """The stamps of an arm that nobody asks for alternate by a second."""
    car.send_transform("base_link", "arm", car.now_ns - SECOND_NS * (car.now_ns // 10**8 % 2), np.eye(4))


def set_attribute(name: str, value: object) -> Callable[[FaultyCar], None]:
    return lambda car: setattr(car, name, value)


def other_node(car: FaultyCar) -> None:
    car.other = car.another_node()


def alone(car: FaultyCar) -> None:
    car.other.destroy_node()


def of_detector(
    what: str,
    code: str,
    inflict: Callable[[FaultyCar], None],
    heal: Callable[[FaultyCar], None],
    says: tuple[str, ...],
    remedy: str,
    level: bytes = DiagnosticStatus.ERROR,
) -> Phase:
    return Phase(what, (Fault(what, "", code, inflict, heal, says, remedy, level),), level)


DETECTOR_PHASES = (
    of_detector(
        "the reference camera stops",
        "no_detection",
        lambda car: car.alter.update({"CAM_FRONT": nothing}),
        heal_all,
        ("nothing detected for", "no images from CAM_FRONT"),
        "every set is made around an image of `reference_camera`: mend it, or name another in the rig",
    ),
    of_detector(
        "stamps of all cameras stand still",
        "no_detection",
        all_altered(frozen),
        heal_all,
        ("nothing detected for", "CAM_FRONT, whose stamps do not advance"),
        "restart the drivers, or the simulation",
    ),
    of_detector(
        "odometry stops",
        "no_detection",
        set_attribute("odometry", False),
        set_attribute("odometry", True),
        ("nothing detected for", "no_transform", "transform_timeout_ms"),
        "restart what publishes `fixed_frame` → `base_frame`",
    ),
    of_detector(
        "the bag or simulation is paused",
        "paused",
        paused,
        resumed,
        ("simulated time stands still",),
        "none needed",
        DiagnosticStatus.STALE,
    ),
    of_detector(
        "calibration that never rests",
        "restless_history",
        all_altered(jitter),
        heal_all,
        ("the history began anew", "calibration_change", "history_calibration_tolerance"),
        "publish constant CameraInfo, or raise `history_calibration_tolerance`",
        DiagnosticStatus.WARN,
    ),
    of_detector(
        "another node has the same name",
        "double_name",
        other_node,
        alone,
        ("another node is called /detector too",),
        "end one of them, or give it another namespace or `__node:=` name",
        DiagnosticStatus.WARN,
    ),
)


@dataclass(frozen=True)
class Refusal:
    """What ends a start, or a configuration, with one line. attempt: what does, given a folder to write into."""

    what: str
    attempt: Callable[[Path], object]
    says: str
    remedy: str


def rig_with(**changes: object) -> Callable[[Path], object]:
    return lambda folder: replace(car_rig(), **changes)


def weights_with(**tensors: torch.Tensor) -> Callable[[Path], object]:
    def attempt(folder: Path) -> object:
        path = folder / "weights.safetensors"
        save_checkpoint(path, tensors, load_yaml(ModelConfig, SMALLEST))
        return detector_for(Settings(model=str(SMALLEST), weights=str(path), device="cpu"), car_rig())

    return attempt


def weights_of_another_model(folder: Path) -> object:
    path, config = folder / "weights.safetensors", load_yaml(ModelConfig, SMALLEST)
    save_checkpoint(path, {}, replace(config, max_detections=7))
    return detector_for(Settings(model=str(SMALLEST), weights=str(path), device="cpu"), car_rig())


def camera_of_no_name(folder: Path) -> object:
    first, *others = car_rig().cameras
    rig = replace(car_rig(), cameras=(replace(first, name="roof"), *others), reference_camera="roof")
    return detector_for(Settings(model=str(SMALLEST), device="cpu"), rig)


def alias_bomb(folder: Path) -> object:
    lines = ["a: &a [x, x, x, x, x, x, x, x]", "b: &b [*a, *a, *a, *a, *a, *a, *a, *a]", "c: [*b, *b, *b, *b, *b, *b]"]
    (folder / "rig.yaml").write_text("\n".join(lines))
    return load_yaml(RigConfig, folder / "rig.yaml")


def one_topic_twice(folder: Path) -> object:
    first, *others = car_rig().cameras
    return replace(car_rig(), cameras=(first, *(replace(camera, image_topic=first.image_topic) for camera in others)))


REFUSALS = (
    Refusal(
        "`device` names a GPU that is not there, or torch can use none",
        lambda folder: resolve_device("cuda:99"),
        "device is cuda:99, but",
        "set `device` to cpu or auto; the line says what torch finds, or that the driver is too old",
    ),
    Refusal(
        "weights hold NaN or infinity",
        weights_with(bad=torch.tensor([float("nan")])),
        "bad holds NaN or infinity",
        "take other weights: training diverged, or the file is damaged",
    ),
    Refusal(
        "weights were trained with another configuration than the model's",
        weights_of_another_model,
        "was trained with another configuration",
        "use the weights alone, as `model`",
    ),
    Refusal(
        "a camera of the rig is none that the model knows",
        camera_of_no_name,
        "learned embeddings of the cameras CAM_FRONT",
        "say in the rig which of the model's cameras it stands for: `model_camera`",
    ),
    Refusal(
        "`output_frame` begins with a slash",
        lambda folder: Settings(output_frame="/map"),
        "without a leading slash: 'map'",
        "write it without",
    ),
    Refusal(
        "a frame of the rig is empty or begins with a slash",
        rig_with(base_frame=""),
        "base_frame is '', expected the name of a tf frame",
        "name the tf frame",
    ),
    Refusal(
        "the pose of the BEV frame is not finite",
        lambda folder: BevFrameConfig((0.0, 0.0, float("nan")), (0.0, 0.0, 0.0)),
        "expected finite numbers",
        "correct `bev_frame` in the rig",
    ),
    Refusal(
        "two cameras have one topic",
        one_topic_twice,
        "which is image_topic of CAM_FRONT already",
        "give each a topic of its own",
    ),
    Refusal(
        "a YAML file with aliases, of which a few lines can mean more than memory holds",
        alias_bomb,
        "is an alias; write the values out",
        "write the values out",
    ),
)


# Which ends the process: test_lost_gpu.
LOST_GPU = (
    "| the GPU does nothing for this process any longer (illegal memory access, assertion in a kernel, off the bus)"
    " | `gpu_lost` | ERROR, then exit status 3 | let the supervisor [start a new process](node.md#a-lost-gpu) |"
)


def document() -> str:
    """docs/faults.md."""
    lines = [
        "# What goes wrong, and what the node says",
        "",
        "Each row is tried over DDS by `make test` (`pytest -m faults`). `/diagnostics`, the log and `problems` of",
        "`/detector/status` always say the same; `problems` in the values of `/diagnostics` holds the short word.",
        "While `minimum_cameras` others remain, the node goes on without a camera that fails (the detector's own level",
        "is WARN then), and takes it back when it is well again; where too few remain, it is ERROR after",
        "`health_timeout_s`.",
        "",
        "## Of one camera",
        "",
        "| what is wrong | `problems` | camera | remedy |",
        "|---|---|---|---|",
        *_rows(fault for phase in (AT_START, *PHASES) for fault in phase.faults),
        "",
        "## Of the whole",
        "",
        "| what is wrong | `problems` | detector | remedy |",
        "|---|---|---|---|",
        *_rows(fault for phase in DETECTOR_PHASES for fault in phase.faults),
        LOST_GPU,
        "",
        "## Refused at the start",
        "",
        "| what is wrong | remedy |",
        "|---|---|",
        *(f"| {refusal.what} | {refusal.remedy} |" for refusal in REFUSALS),
    ]
    return "\n".join(lines) + "\n"


def _rows(faults: Iterator[Fault]) -> list[str]:
    return [f"| {fault.what} | `{fault.code}` | {LEVELS[fault.level]} | {fault.remedy} |" for fault in faults]


if __name__ == "__main__":
    print(document(), end="")
