"""What one camera has sent, and what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from statistics import median

from bevformer_ros.config import CameraConfig
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS

_RECENT = 10  # images from which rate and stamps are judged
_SILENT_S = 1.0
_SILENT_PERIODS = 3.0
_FROZEN_REPEATS = 3
_HEALED_S = 1.0
_UNUSED_S = 1.0
_UNUSED_PERIODS = 5.0  # longer than the synchronizer waits for a camera


class Level(IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Problem:
    """source: name of a camera, empty for the detector. code: the same as long as it is the same problem."""

    source: str
    code: str
    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.source}: {self.text}" if self.source else self.text


@dataclass(frozen=True)
class CameraFault:
    """Why a camera's image could not be used. reason: a short word to count it under."""

    camera: str
    reason: str
    text: str


# Which of a camera's parts a fault speaks of.
ASPECT_OF_REASON = {
    "undecodable": "decoding",
    "wrong_size": "camera_info",
    "no_camera_info": "camera_info",
    "uncalibrated": "calibration",
    "unusable_camera_info": "calibration",
    "no_transform": "transform",
    "unstamped": "stamps",
}


class CameraHealth:
    """Not thread-safe. Times ending in _s are of one steady clock, stamps nanoseconds."""

    def __init__(self, config: CameraConfig, started_s: float) -> None:
        self.name, self.image_topic, self.info_topic = config.name, config.image_topic, config.camera_info_topic
        self.used_s: float | None = None
        self._fault: CameraFault | None = None
        self._fault_s = started_s
        self.suspicion: Problem | None = None
        self._offset_ns = round(config.exposure_offset_ms * MILLISECOND_NS)
        self._started_s = self._arriving_since_s = started_s
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=_RECENT)  # time, stamp
        self._repeats = 0
        self._received = 0

    def note_image(self, stamp_ns: int, now_s: float) -> None:
        self._received += 1
        if not self._arrivals or self.silent(now_s):
            self._arriving_since_s = now_s
        same = bool(self._arrivals) and self._arrivals[-1][1] == stamp_ns
        self._repeats = self._repeats + 1 if same else 0
        self._arrivals.append((now_s, stamp_ns))

    def note_used(self, now_s: float) -> None:
        self.used_s = now_s

    def note_fault(self, fault: CameraFault, now_s: float) -> None:
        self._fault, self._fault_s = fault, now_s

    def fault(self, now_s: float) -> CameraFault | None:
        """The last one, until an image was used and a while has passed: one that comes and goes is one."""
        used_since = self.used_s is not None and self.used_s >= self._fault_s
        return None if used_since and now_s - self._fault_s > _HEALED_S else self._fault

    @property
    def stamp_ns(self) -> int | None:
        """Of the last image."""
        return self._arrivals[-1][1] if self._arrivals else None

    @property
    def period_s(self) -> float | None:
        steps = [after[0] - before[0] for before, after in pairwise(self._arrivals)]
        return median(steps) if steps else None

    @property
    def frozen(self) -> bool:
        return self._repeats >= _FROZEN_REPEATS

    def uninformed(self, now_s: float) -> bool:
        """Whether its images cannot be used for want of a CameraInfo."""
        fault = self.fault(now_s)
        return fault is not None and fault.reason == "no_camera_info"

    def age_s(self, now_s: float) -> float:
        """Since the last image, or since the beginning if there was none."""
        return now_s - (self._arrivals[-1][0] if self._arrivals else self._started_s)

    def silent(self, now_s: float) -> bool:
        return self.age_s(now_s) > max(_SILENT_S, _SILENT_PERIODS * (self.period_s or 0.0))

    def unused(self, now_s: float) -> bool:
        """Whether its images have been arriving for a while, and no set has used one."""
        since_s = max(self._arriving_since_s, self.used_s or 0.0)
        return now_s - since_s > max(_UNUSED_S, _UNUSED_PERIODS * (self.period_s or 0.0))

    @property
    def stamp_offset_ns(self) -> float | None:
        """Stamp against time of arrival, without the rig's exposure offset; means something between cameras only."""
        if not self._arrivals:
            return None
        return median(stamp - self._offset_ns - at * SECOND_NS for at, stamp in self._arrivals)

    def problem(
        self, now_s: float, topic_faults: Mapping[str, str], lead_ns: float | None, missing: bool
    ) -> Problem | None:
        """The root of what is wrong. topic_faults: what the ROS graph says about topics.

        lead_ns: how far its stamps lie ahead of those of the other cameras, None where that cannot be told. missing:
        sets come without an image of it.
        """
        where = f"{self.image_topic} (cameras.{self.name}.image_topic)"
        if self.silent(now_s):
            if self.image_topic in topic_faults:
                return self._error("topic", topic_faults[self.image_topic])
            last = f"for {self.age_s(now_s):.1f} s" if self._received else "yet"
            return self._error(
                "no_images", f"no images {last} on {where}; check the camera, its driver and the network"
            )
        if self.stamp_ns == 0:
            return self._error("unstamped", f"images on {where} have the stamp 0; the driver must set header.stamp")
        if self.frozen:
            at = f"{(self.stamp_ns or 0) / SECOND_NS:.3f} s"
            return self._error("frozen", f"all images on {where} have the stamp {at}; restart the driver")
        fault = self.fault(now_s)
        if fault is not None:
            text = topic_faults.get(self.info_topic, fault.text) if self.uninformed(now_s) else fault.text
            return self._error(fault.reason, f"{text} [{where}]")
        if missing and self.unused(now_s):
            return self._error("unmatched", self._unmatched(where, lead_ns))
        return self.suspicion

    def _unmatched(self, where: str, lead_ns: float | None) -> str:
        if lead_ns is None or abs(lead_ns) < 0.02 * SECOND_NS:
            return f"images on {where} find no set; compare its stamps and rate with the reference camera's"
        side = "ahead of" if lead_ns > 0 else "behind"
        return (
            f"images on {where} find no set: stamped or received {abs(lead_ns) / SECOND_NS:.2f} s {side} the other "
            f"cameras; synchronise its clock, or set cameras.{self.name}.exposure_offset_ms, sync_tolerance_ms or "
            "sync_timeout_ms"
        )

    def _error(self, code: str, text: str) -> Problem:
        return Problem(self.name, code, Level.ERROR, text)

    def values(self, now_s: float, lead_ns: float | None) -> dict[str, str]:
        """For diagnostics."""
        aspects = dict.fromkeys(("decoding", "camera_info", "calibration", "transform"), "unknown")
        if self.used_s is not None:
            aspects = dict.fromkeys(aspects, "ok")
        stamps = "none" if self.stamp_ns is None else "zero" if self.stamp_ns == 0 else "rising"
        if self.frozen and self.stamp_ns:
            stamps = "frozen"
        fault = self.fault(now_s)
        if fault is not None:
            aspects[ASPECT_OF_REASON[fault.reason]] = fault.reason
        return {
            "image_topic": self.image_topic,
            "images": str(self._received),
            "age_s": f"{self.age_s(now_s):.2f}",
            "rate_hz": f"{1 / self.period_s:.1f}" if self.period_s and not self.silent(now_s) else "0.0",
            "stamp_lead_ms": "unknown" if lead_ns is None else f"{lead_ns / MILLISECOND_NS:.0f}",
            "stamps": stamps,
            **aspects,
        }
