"""What the node has done: counters, the status message per set, diagnostics once a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from bevformer_ros.msg import DetectorStatus, ReasonCount, StageLatency
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from bevformer_ros.inference.pipeline import HistoryStatus
from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.node.frame_assembly import ImageSet
from bevformer_ros.types import SECOND_NS

_PERIOD_SMOOTHING = 0.2
_NO_HISTORY = HistoryStatus(depth=0, slots=0, bytes=0, resets={})


@dataclass(frozen=True)
class SetReport:
    """What happened to one set. used: per camera of the rig whether it had an image; drop_reason: empty if processed.

    latencies_ms: by stage in the order in which they ran, empty for a set that was dropped.
    """

    header: Header
    used: tuple[bool, ...]
    skew_ms: float = 0.0
    latencies_ms: Mapping[str, float] = field(default_factory=dict)
    total_latency_ms: float = 0.0
    drop_reason: str = ""


def report_of(
    images: ImageSet,
    base_frame: str,
    latencies_ms: Mapping[str, float],
    total_latency_ms: float,
    drop_reason: str = "",
) -> SetReport:
    return SetReport(
        header=header_of(images.stamp_ns, base_frame),
        used=tuple(message is not None for message in images.messages),
        skew_ms=images.skew_ms,
        latencies_ms=latencies_ms,
        total_latency_ms=total_latency_ms,
        drop_reason=drop_reason,
    )


def stage_latencies(laps_ms: Mapping[str, float], detector_ms: Mapping[str, float]) -> dict[str, float]:
    """The stages outside the detector, with the detector's own in the place of the lap "detector"."""
    stages: dict[str, float] = {}
    for stage, milliseconds in laps_ms.items():
        stages.update(detector_ms if stage == "detector" else {stage: milliseconds})
    return stages


class DetectorRecord:
    """Counts since activation; every method may be called from any thread."""

    def __init__(self, camera_names: tuple[str, ...], model: str, trained: bool) -> None:
        self._names, self._model, self._trained = camera_names, model, trained
        self._lock = threading.Lock()
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._history = _NO_HISTORY
        self._last_stamp_ns: int | None = None
        self._period_ns: float | None = None
        self._at_last_diagnosis: tuple[int, Counter[str]] = (0, Counter())
        self._last_message: DetectorStatus | None = None

    def add(
        self, report: SetReport, images_dropped: Mapping[str, int], history: HistoryStatus | None
    ) -> DetectorStatus:
        """Count one set and describe it. history: None where the set never came to the detector."""
        with self._lock:
            if report.drop_reason:
                self._dropped[report.drop_reason] += 1
            else:
                self._processed += 1
                self._note_period(report.header.stamp.sec * SECOND_NS + report.header.stamp.nanosec)
            if history is not None:
                self._history = history
            message = DetectorStatus(
                header=report.header,
                model=self._model,
                trained_weights=self._trained,
                cameras_used=[name for name, used in zip(self._names, report.used, strict=True) if used],
                cameras_missing=[name for name, used in zip(self._names, report.used, strict=True) if not used],
                skew_ms=report.skew_ms,
                latencies=[StageLatency(stage=stage, milliseconds=ms) for stage, ms in report.latencies_ms.items()],
                total_latency_ms=report.total_latency_ms,
                history_depth=self._history.depth,
                history_slots=self._history.slots,
                history_bytes=self._history.bytes,
                history_resets=_reason_counts(self._history.resets),
                sets_processed=self._processed,
                sets_dropped=_reason_counts(self._dropped),
                images_dropped=_reason_counts(images_dropped),
            )
            self._last_message = message
            return message

    @property
    def period_ns(self) -> float | None:
        """Smoothed time between the stamps of processed sets; None before the second one."""
        return self._period_ns

    def _note_period(self, stamp_ns: int) -> None:
        previous, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        if previous is None or stamp_ns <= previous:
            return
        step = stamp_ns - previous
        if self._period_ns is None:
            self._period_ns = float(step)
        else:
            self._period_ns += _PERIOD_SMOOTHING * (step - self._period_ns)

    def diagnose(self, name: str, silent_cameras: tuple[str, ...], elapsed_s: float) -> DiagnosticStatus:
        """What a person should know about the time since the last call, elapsed_s ago.

        silent_cameras: those from which no image came in that time.
        """
        with self._lock:
            processed_before, dropped_before = self._at_last_diagnosis
            self._at_last_diagnosis = (self._processed, Counter(self._dropped))
            processed, dropped = self._processed - processed_before, self._dropped - dropped_before
            last = self._last_message
        troubles = []
        if silent_cameras:
            troubles.append(f"no images from {', '.join(silent_cameras)}")
        if dropped:
            troubles.append("sets dropped: " + ", ".join(f"{count} {reason}" for reason, count in dropped.items()))
        if not self._trained:
            troubles.append("untrained weights, the boxes mean nothing")
        values = {"rate_hz": f"{processed / elapsed_s:.1f}", "model": self._model, "trained": str(self._trained)}
        if last is not None:
            values["total_latency_ms"] = f"{last.total_latency_ms:.1f}"
            values.update({f"{entry.stage}_ms": f"{entry.milliseconds:.1f}" for entry in last.latencies})
            values["history"] = f"{last.history_depth} of {last.history_slots}"
            values.update({f"dropped_{entry.reason}": str(entry.count) for entry in last.sets_dropped})
        stalled = len(silent_cameras) == len(self._names)
        level = DiagnosticStatus.ERROR if stalled else DiagnosticStatus.WARN if troubles else DiagnosticStatus.OK
        return DiagnosticStatus(
            name=name,
            level=level,
            message="; ".join(troubles) or "detecting",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )


def _reason_counts(counts: Mapping[str, int]) -> list[ReasonCount]:
    return [ReasonCount(reason=reason, count=count) for reason, count in counts.items() if count]
