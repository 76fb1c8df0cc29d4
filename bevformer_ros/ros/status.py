"""What the node has done and how it fares, as messages: counters and health."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.messages import DetectorStatus, DiagnosticStatus, Header, KeyValue, ReasonCount, StageLatency
from bevformer_ros.ros.node.camera_health import Level, Problem
from bevformer_ros.ros.node.frame_assembly import SynchronizedSet
from bevformer_ros.ros.node.health import Assessment
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
    images: SynchronizedSet,
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


def stage_latencies(outside_ms: Mapping[str, float], detector_ms: Mapping[str, float]) -> dict[str, float]:
    """The stages outside the detector, with the detector's own in the place of the stage "detector"."""
    stages: dict[str, float] = {}
    for stage, milliseconds in outside_ms.items():
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
        self._images_dropped: Mapping[str, int] = {}
        self._assessment = Assessment((), {})

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
            self._images_dropped = images_dropped
            message = self._counters()
        message.header = report.header
        message.cameras_used = [name for name, used in zip(self._names, report.used, strict=True) if used]
        message.cameras_missing = [name for name, used in zip(self._names, report.used, strict=True) if not used]
        message.skew_ms = report.skew_ms
        message.latencies = [StageLatency(stage=stage, milliseconds=ms) for stage, ms in report.latencies_ms.items()]
        message.total_latency_ms = report.total_latency_ms
        return message

    def idle(self, header: Header) -> DetectorStatus:
        """For the time in which no set comes."""
        with self._lock:
            message = self._counters()
        message.header, message.event = header, DetectorStatus.IDLE
        return message

    def note_health(self, assessment: Assessment) -> None:
        """What the messages say from now on."""
        with self._lock:
            self._assessment = assessment

    def _counters(self) -> DetectorStatus:
        return DetectorStatus(
            level=int(self._assessment.level),
            problems=[str(problem) for problem in self._assessment.problems],
            model=self._model,
            trained_weights=self._trained,
            history_depth=self._history.depth,
            history_slots=self._history.slots,
            history_bytes=self._history.bytes,
            history_resets=_reason_counts(self._history.resets),
            sets_processed=self._processed,
            sets_dropped=_reason_counts(self._dropped),
            images_dropped=_reason_counts(self._images_dropped),
        )

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


def diagnostics_of(assessment: Assessment, node: str, hardware: Mapping[str, str]) -> list[DiagnosticStatus]:
    """One for the detector, whose message names every problem, and one per camera. hardware: by name of the camera."""
    statuses = [_diagnostic(node, node, assessment.level, assessment.problems, assessment.values.get("", {}))]
    for camera, topic in hardware.items():
        problems = tuple(problem for problem in assessment.problems if problem.source == camera)
        values = assessment.values.get(camera, {})
        statuses.append(_diagnostic(f"{node}: {camera}", topic, assessment.level_of(camera), problems, values))
    return statuses


def _diagnostic(
    name: str, hardware: str, level: Level, problems: Sequence[Problem], values: Mapping[str, str]
) -> DiagnosticStatus:
    codes = ", ".join(problem.code for problem in problems)
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware,
        level=bytes([level]),
        message="; ".join(map(str, problems)) or "OK",
        values=[KeyValue(key=key, value=value) for key, value in {"problems": codes, **values}.items()],
    )


def _reason_counts(counts: Mapping[str, int]) -> list[ReasonCount]:
    return [ReasonCount(reason=reason, count=count) for reason, count in counts.items() if count]
