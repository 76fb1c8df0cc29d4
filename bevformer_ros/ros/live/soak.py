"""The whole node for a long time: does it grow? Memory, threads, descriptors and shared memory, with a verdict."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bevformer_ros.msg import DetectorStatus

from bevformer_ros.ros.live.demo import prepare_environment
from bevformer_ros.ros.live.node_benchmark import NodeLoad, listen

_SAMPLES = 300  # spread over the run
_MEMORY_GROWTH_MB = 16.0  # of the last third over the one before: what allocators keep back differs by less
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Sample:
    """What the node held after so many sets. memory_mb: resident. shared_files: of /dev/shm, mapped by it."""

    sets: int
    memory_mb: float
    threads: int
    descriptors: int
    shared_files: int


@dataclass(frozen=True)
class SoakResult:
    """processed, dropped: sets. samples: the first third of a run is the node's warming up, and judged by nobody."""

    published: int
    processed: int
    dropped: dict[str, int]
    samples: tuple[Sample, ...]

    def faults(self) -> list[str]:
        """What grew or was lost; empty for a node that can run for ever."""
        if len(self.samples) < 6:
            return [f"only {len(self.samples)} samples, expected at least 6: run more sets"]
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        found = []
        growth_mb = _median_memory(last) - _median_memory(middle)
        if growth_mb > _MEMORY_GROWTH_MB:
            found.append(f"memory grew by {growth_mb:.0f} MB in the last third, expected at most {_MEMORY_GROWTH_MB:g}")
        for name in ("threads", "descriptors", "shared_files"):
            before, after = (max(getattr(sample, name) for sample in part) for part in (middle, last))
            if after > before:
                found.append(f"{name.replace('_', ' ')} grew from {before} to {after}")
        return found

    @property
    def never_arrived(self) -> int:
        """Sets whose images were lost on their way: the machine is too slow for the rate, or the transport small."""
        return self.published - self.processed - sum(self.dropped.values())

    def table(self) -> str:
        shown = self.samples[:: max(1, len(self.samples) // 8)]
        dropped = self.dropped or "none"
        lines = [
            f"{self.processed} of {self.published} sets detected in, dropped: {dropped}, never arrived: "
            + str(self.never_arrived)
        ]
        lines.append(f"{'sets':>8}{'memory MB':>11}{'threads':>9}{'descriptors':>13}{'/dev/shm':>10}")
        for sample in shown:
            lines.append(
                f"{sample.sets:>8}{sample.memory_mb:>11.0f}{sample.threads:>9}{sample.descriptors:>13}"
                f"{sample.shared_files:>10}"
            )
        faults = self.faults()
        return "\n".join([*lines, "verdict: " + ("; ".join(faults) if faults else "it holds what it held")])


def soak(load: NodeLoad) -> SoakResult:
    """Raises ValueError, with the node's last words, where it ends before its work is done."""
    prepare_environment()
    every, samples, last = max(1, load.sets // _SAMPLES), [], DetectorStatus()

    def note(status: DetectorStatus, pid: int) -> None:
        nonlocal last
        last = status
        sets = status.sets_processed + sum(entry.count for entry in status.sets_dropped)
        if sets % every == 0:
            samples.append(sample_of(pid, sets))

    with tempfile.TemporaryDirectory() as folder:
        listen(load, Path(folder) / "detector.log", note)
    dropped = {entry.reason: entry.count for entry in last.sets_dropped}
    return SoakResult(load.sets, last.sets_processed, dropped, tuple(samples))


def sample_of(pid: int, sets: int) -> Sample:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="utf-8").splitlines())
    maps = (process / "maps").read_text(encoding="utf-8")
    return Sample(
        sets,
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["Threads"]),
        sum(1 for _ in (process / "fd").iterdir()),
        len({line.split()[-1] for line in maps.splitlines() if f" {_SHARED_MEMORY}/" in line}),
    )


def _median_memory(samples: Sequence[Sample]) -> float:
    return median(sample.memory_mb for sample in samples)
