"""What is wrong with the node and its cameras, judged in one place; diagnostics, log and status only repeat it.

Times ending in _s are of one steady clock, stamps nanoseconds. Rates and ages are judged over so many sets that a
network slower than 1 Hz does not look broken between two of its sets.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, median_low

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.ros.node.camera_health import CameraFault, CameraHealth, Level, Problem

UNTRAINED = "UNTRAINED: the weights are random, the boxes mean nothing"
_WINDOW_S = 2.0
_WINDOW_PERIODS = 2.5
_RATE_SETS = 10
_RESET_WINDOW_S = 60.0
_MOST_RESETS = 3  # in that time
_RESTED_S = 5.0  # without any, all is well again
_SKIPPED = ("rate_limit", "unsubscribed")  # by the user's wish
_OTHER_CLOCK_S = 600.0  # a stamp farther from now than this is of another clock

REMEDIES = {
    "incomplete": "a camera is missing; allow fewer by minimum_cameras",
    "superseded": "the network is slower than the cameras; take a smaller model, a GPU, or fewer images a second",
    "not_finite": "the network computed NaN; take precision float32, and other weights if that does not help",
    "out_of_memory": "take a smaller model, precision float16, or a GPU that nobody else uses",
    "failed": "the log has the traceback; please report it",
}
_RESET_REMEDIES = {
    "gap": "sets come too seldom; raise history_maximum_gap_s, or take a faster model",
    "pose_jump": "the fixed frame jumps; take a continuous one (odom, not map) as the rig's fixed_frame, or raise "
    "history_pose_noise_m or history_pose_noise_rad",
    "calibration_change": "CameraInfo or mounting transforms never rest; publish constant ones, or raise "
    "history_calibration_tolerance, history_mount_tolerance_m or history_mount_tolerance_rad",
    "backward_time": "stamps go back; play the bag without a loop, or with pauses",
}


@dataclass(frozen=True)
class HealthLimits:
    """timeout_s: nothing detected for so long is an error. maximum_age_s: of boxes at publication, from their stamp."""

    timeout_s: float
    maximum_age_s: float


@dataclass(frozen=True)
class Assessment:
    """The state at one moment. problems: of the cameras and of the detector (source empty), the worst first.

    values: for diagnostics, by source.
    """

    problems: tuple[Problem, ...]
    values: Mapping[str, Mapping[str, str]]

    def level_of(self, source: str) -> Level:
        return max((problem.level for problem in self.problems if problem.source == source), default=Level.OK)

    @property
    def level(self) -> Level:
        """Of the detector: a camera's defect alone is a warning."""
        return max(self.level_of(""), Level.WARN if self.problems else Level.OK)


@dataclass(frozen=True)
class SetOutcome:
    """age_s: of the boxes at publication, on the ROS clock; None for a set that was dropped. detail: why it was."""

    at_s: float
    drop_reason: str
    missing: tuple[str, ...]
    age_s: float | None
    detail: str = ""


class HealthModel:
    """Every method may be called from any thread."""

    def __init__(self, rig: RigConfig, limits: HealthLimits, trained: bool, started_s: float) -> None:
        self._limits, self._trained, self._started_s = limits, trained, started_s
        self._reference = rig.reference_camera
        self._lock = threading.Lock()
        self._cameras = {camera.name: CameraHealth(camera, started_s) for camera in rig.cameras}
        self._outcomes: deque[SetOutcome] = deque(maxlen=1000)
        self._processed_s: deque[float] = deque(maxlen=_RATE_SETS)
        self._begun_s: float | None = None
        self._skipped_s = started_s
        self._decoded_on_cpu = 0
        self._history = HistoryStatus(depth=0, slots=0, bytes=0, resets={})
        self._resets: deque[tuple[float, Counter[str]]] = deque()
        self._reset_s = started_s
        self._suspicions: tuple[Problem, ...] = ()

    def note_image(self, camera: str, stamp_ns: int, now_s: float) -> None:
        with self._lock:
            self._cameras[camera].note_image(stamp_ns, now_s)

    def note_assembled(self, used: Sequence[str], faults: Sequence[CameraFault], now_s: float) -> None:
        """Which cameras' images of a set can be used, and why others cannot."""
        with self._lock:
            for name in used:
                self._cameras[name].note_used(now_s)
            for fault in faults:
                self._cameras[fault.camera].note_fault(fault, now_s)

    def note_decoded_on_cpu(self, sets: int) -> None:
        """How many were, so far, though a GPU should have."""
        self._decoded_on_cpu = sets

    def note_suspicions(self, suspicions: Sequence[Problem]) -> None:
        """What a look at calibration and mounting found odd, in place of what was found before."""
        with self._lock:
            for camera in self._cameras.values():
                camera.suspicion = next((entry for entry in suspicions if entry.source == camera.name), None)
            self._suspicions = tuple(entry for entry in suspicions if not entry.source)

    def note_begun(self, now_s: float) -> None:
        """The network has begun with a set."""
        with self._lock:
            self._begun_s = now_s

    def note_done(self) -> None:
        """The network has ended with it, whatever came out."""
        with self._lock:
            self._begun_s = None

    def note_set(self, outcome: SetOutcome, history: HistoryStatus | None) -> None:
        """history: None where the set never came to the network."""
        with self._lock:
            if outcome.drop_reason in _SKIPPED:
                self._skipped_s = outcome.at_s
                return
            self._outcomes.append(outcome)
            if not outcome.drop_reason:
                self._processed_s.append(outcome.at_s)
            if history is not None:
                if history.resets != self._history.resets:
                    self._reset_s = outcome.at_s
                self._history = history
                self._resets.append((outcome.at_s, Counter(history.resets)))

    def assess(
        self,
        now_s: float,
        topic_faults: Mapping[str, str],
        surroundings: Sequence[Problem] = (),
        clock_stands: bool = False,
    ) -> Assessment:
        """topic_faults: what the ROS graph says about topics on which nothing arrives. surroundings: what the node
        itself has noticed. clock_stands: simulated time does not pass."""
        with self._lock:
            leads = self._leads()
            missing = {name for outcome in self._recent(now_s) for name in outcome.missing}
            cameras = [
                camera.problem(now_s, topic_faults, leads[name], name in missing)
                for name, camera in self._cameras.items()
            ]
            problems = [
                problem for problem in (*self._of_detector(now_s, clock_stands), *surroundings, *cameras) if problem
            ]
            values = {name: camera.values(now_s, leads[name]) for name, camera in self._cameras.items()}
            values[""] = self._values(now_s)
        problems.sort(key=lambda problem: -problem.level)
        return Assessment(tuple(problems), values)

    def mute_topics(self, now_s: float) -> list[tuple[str, str]]:
        """Camera and topic of all on which nothing has arrived lately, or no CameraInfo ever."""
        with self._lock:
            silent = [(name, camera.image_topic) for name, camera in self._cameras.items() if camera.silent(now_s)]
            uninformed = [
                (name, camera.info_topic) for name, camera in self._cameras.items() if camera.uninformed(now_s)
            ]
            return silent + uninformed

    def _leads(self) -> dict[str, float | None]:
        """How far the stamps of each camera lie ahead of the others'."""
        offsets = {name: camera.stamp_offset_ns for name, camera in self._cameras.items()}
        known = [offset for name, offset in offsets.items() if offset is not None and self._cameras[name].stamp_ns]
        # Of two cameras, nobody knows which is right.
        common = offsets[self._reference] if len(known) < 3 else median_low(known)
        return {name: None if offset is None or common is None else offset - common for name, offset in offsets.items()}

    def _of_detector(self, now_s: float, clock_stands: bool) -> list[Problem]:
        problems = [*self._suspicions, *self._silence(now_s, clock_stands)]
        recent = self._recent(now_s)
        dropped = Counter(outcome.drop_reason for outcome in recent if outcome.drop_reason)
        processed = [outcome for outcome in recent if not outcome.drop_reason]
        if dropped:
            problems.append(_warning("sets_dropped", _told(recent, dropped)))
        missing = sorted({name for outcome in processed for name in outcome.missing})
        if missing:
            total = len(self._cameras)
            problems.append(
                _warning(
                    "fewer_cameras",
                    f"detecting with {total - len(missing)} of {total} cameras, without {', '.join(missing)}",
                )
            )
        problems += self._age([outcome.age_s for outcome in processed if outcome.age_s is not None])
        if not self._trained:
            problems.append(_warning("untrained", UNTRAINED + "; set weights or model"))
        return problems + self._restless(now_s)

    def _silence(self, now_s: float, clock_stands: bool) -> list[Problem]:
        since = self._processed_s[-1] if self._processed_s else self._started_s
        if self._begun_s is None:
            since = max(since, self._skipped_s)
        if now_s - since <= max(self._limits.timeout_s, _WINDOW_PERIODS * (self._period_s() or 0.0)):
            return []
        if clock_stands and all(camera.silent(now_s) for camera in self._cameras.values()):
            text = "simulated time stands still and no images come: the bag or simulation is paused, or ended"
            return [Problem("", "paused", Level.STALE, text)]
        text = f"nothing detected for {now_s - since:.1f} s"
        silent = [name for name, camera in self._cameras.items() if camera.silent(now_s)]
        reference = self._cameras[self._reference]
        if self._begun_s is not None:
            text += f": the network has worked on one set for {now_s - self._begun_s:.1f} s; {REMEDIES['superseded']}"
        elif silent:
            text += f": no images from {', '.join(silent)}"
        elif reference.frozen or reference.stamp_ns == 0:
            text += f": every set is made around an image of {self._reference}, whose stamps do not advance"
        else:
            recent = self._recent(now_s)
            dropped = Counter(outcome.drop_reason for outcome in recent if outcome.drop_reason)
            text += f": {_told(recent, dropped)}" if dropped else ": no set is complete"
        return [Problem("", "no_detection", Level.ERROR, text)]

    def _age(self, ages_s: list[float]) -> list[Problem]:
        if not ages_s:
            return []
        age_s = median(ages_s)
        if abs(age_s) > _OTHER_CLOCK_S:
            text = f"stamps lie {abs(age_s):.0f} s from this node's time; play bags with /clock and use_sim_time:=true"
            return [_warning("clock", text)]
        if age_s > self._limits.maximum_age_s:
            text = (
                f"boxes are {age_s:.2f} s old when they are published, more than health_maximum_age_s "
                f"({self._limits.maximum_age_s:g} s); take a smaller model or a faster device"
            )
            return [_warning("age", text)]
        if age_s < -self._limits.maximum_age_s:
            return [_warning("clock", f"stamps lie {-age_s:.2f} s in the future; synchronise the cameras' clocks")]
        return []

    def _restless(self, now_s: float) -> list[Problem]:
        while len(self._resets) > 1 and self._resets[1][0] <= now_s - _RESET_WINDOW_S:
            self._resets.popleft()
        if not self._resets:
            return []
        resets = self._resets[-1][1] - self._resets[0][1]
        resets.pop("request", None)
        if resets.total() <= _MOST_RESETS or now_s - self._reset_s > _RESTED_S:
            return []
        counts = ", ".join(f"{count} {reason}" for reason, count in resets.most_common())
        remedy = _RESET_REMEDIES.get(resets.most_common(1)[0][0], "")
        return [
            _warning(
                "restless_history", f"the history began anew {resets.total()} times in a minute: {counts}; {remedy}"
            )
        ]

    def _recent(self, now_s: float) -> list[SetOutcome]:
        window_s = max(_WINDOW_S, _WINDOW_PERIODS * (self._period_s() or 0.0))
        return [outcome for outcome in self._outcomes if now_s - outcome.at_s <= window_s]

    def _period_s(self) -> float | None:
        """Time between processed sets."""
        steps = [after - before for before, after in pairwise(self._processed_s)]
        return median(steps) if steps else None

    def _values(self, now_s: float) -> dict[str, str]:
        recent, period_s = self._recent(now_s), self._period_s()
        active = bool(recent) and any(not outcome.drop_reason for outcome in recent)
        ages_s = [outcome.age_s for outcome in recent if outcome.age_s is not None]
        camera_period_s = self._cameras[self._reference].period_s
        return {
            "rate_hz": f"{1 / period_s:.1f}" if period_s and active else "0.0",
            "camera_rate_hz": f"{1 / camera_period_s:.1f}" if camera_period_s else "0.0",
            "age_s": f"{median(ages_s):.3f}" if ages_s else "unknown",
            "history": f"{self._history.depth} of {self._history.slots}",
            **{f"history_reset_{reason}": str(count) for reason, count in self._history.resets.items()},
            **({"sets_decoded_on_cpu": str(self._decoded_on_cpu)} if self._decoded_on_cpu else {}),
            "trained": str(self._trained),
        }


def _warning(code: str, text: str) -> Problem:
    return Problem("", code, Level.WARN, text)


def _told(outcomes: list[SetOutcome], dropped: Counter[str]) -> str:
    """What became of dropped sets, and what to do about the worst reason: sets pile up behind any other."""
    counts = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    worst = max(dropped, key=lambda reason: (reason != "superseded", dropped[reason]))
    detail = next((outcome.detail for outcome in reversed(outcomes) if outcome.drop_reason == worst), "")
    return f"sets dropped: {counts}; {detail or REMEDIES.get(worst, 'see the cameras')}"
