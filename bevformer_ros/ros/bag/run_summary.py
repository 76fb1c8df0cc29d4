"""What a run of the detector amounts to, computed from the DetectorStatus messages that it published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.messages import DetectorStatus

TOTAL_STAGE = "total, last image to boxes"
REQUIRED_SHARE = 0.9


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of one stage over all processed sets."""

    stage: str
    median: float
    percentile_95: float


@dataclass(frozen=True)
class Summary:
    """sets_in: reference images played. dropped: sets by reason. missing: sets of which no status says anything.
    processed_stamps: reference stamps of the sets that were processed. boxes: published, over all sets."""

    model: str
    trained: bool
    sets_in: int
    processed: int
    dropped: dict[str, int]
    boxes: int
    stages: tuple[StageTimes, ...]
    processed_stamps: frozenset[int]

    @property
    def missing(self) -> int:
        return max(0, self.sets_in - self.processed - sum(self.dropped.values()))

    @property
    def succeeded(self) -> bool:
        """At least nine in ten sets processed, and any at all."""
        return self.processed > 0 and self.processed >= REQUIRED_SHARE * self.sets_in

    def table(self) -> str:
        """For a terminal."""
        rows = [
            ("sets in", f"{self.sets_in}"),
            ("sets processed", f"{self.processed} ({100 * self.processed / max(1, self.sets_in):.0f} %)"),
            ("sets dropped", f"{sum(self.dropped.values())}"),
            *((f"  {reason}", f"{count}") for reason, count in sorted(self.dropped.items())),
            ("sets not accounted for", f"{self.missing}"),
            ("boxes", f"{self.boxes} ({self.boxes / max(1, self.processed):.1f} a set)"),
            ("latency, ms", f"{'p50':>8}{'p95':>9}"),
            *((f"  {entry.stage}", f"{entry.median:8.1f}{entry.percentile_95:9.1f}") for entry in self.stages),
        ]
        return "\n".join(f"{name:<30}{value}" for name, value in rows)


def summarise(statuses: Sequence[DetectorStatus], sets_in: int, boxes: int) -> Summary:
    """statuses: all of one activation, in the order of their publishing; one per processed or dropped set."""
    processed = [status for status in statuses if status.latencies]
    last = statuses[-1] if statuses else DetectorStatus()
    return Summary(
        model=last.model,
        trained=last.trained_weights,
        sets_in=sets_in,
        processed=last.sets_processed,
        dropped={entry.reason: entry.count for entry in last.sets_dropped},
        boxes=boxes,
        stages=_stage_times(processed),
        processed_stamps=frozenset(stamp_to_ns(status.header.stamp) for status in processed),
    )


def _stage_times(processed: Sequence[DetectorStatus]) -> tuple[StageTimes, ...]:
    samples: dict[str, list[float]] = {}
    for status in processed:
        for latency in status.latencies:
            samples.setdefault(latency.stage, []).append(latency.milliseconds)
        samples.setdefault(TOTAL_STAGE, []).append(status.total_latency_ms)
    # A stage that first occurred late (a longer history) still comes before the total.
    ordered = sorted(samples.items(), key=lambda entry: entry[0] == TOTAL_STAGE)
    return tuple(StageTimes(stage, *np.percentile(values, (50, 95)).tolist()) for stage, values in ordered)
