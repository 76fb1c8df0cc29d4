"""Bags in, bags with the detector's results out, one for each; no ROS graph."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.compute_threads import compute_with
from bevformer_ros.resources import config_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.files import BagReader, BagWriter, Storage
from bevformer_ros.ros.bag.replay import BagReplay
from bevformer_ros.ros.bag.replay_record import RECORD_FILE
from bevformer_ros.ros.bag.storages import require_folder_of_bags
from bevformer_ros.ros.detector_loading import detector_for, device_of, network_files, precision_of
from bevformer_ros.ros.messages import DetectorStatus
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.worker_process import follow_parent, starting_workers


@dataclass(frozen=True)
class Task:
    """One bag, and where its results go. markers: whether those for RViz and Foxglove are among them."""

    bag: Path
    output: Path
    settings: Settings
    storage: Storage = "mcap"
    markers: bool = False

    def record(self) -> dict[str, Any]:
        """What the results depend on, as stored beside them."""
        settings = self.settings
        files = [config_file("rigs", settings.rig), *network_files(settings)]
        return {
            "bag": str(self.bag.resolve()),
            "settings": {**asdict(settings), "device": device_of(settings), "precision": precision_of(settings)},
            "storage": self.storage,
            "markers": self.markers,
            "files": {str(file): file.stat().st_mtime_ns for file in files if file.is_file()},
        }


@dataclass(frozen=True)
class Outcome:
    """What became of a task. losses: what of the bag could not be read. skipped: its results were there already. error:
    why there are no results."""

    task: Task
    processed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    skipped: bool = False
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.task.bag} was not replayed: {self.error}"
        state = "was done already" if self.skipped else "done"
        parts = [f"{self.task.output}: {state}, {self.processed} sets"]
        if self.dropped:
            parts.append("dropped " + ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items())))
        return "; ".join([*parts, *self.losses])


def finished(task: Task) -> Outcome | None:
    """The outcome of an earlier run of the same task; None where there is none, or it broke off: then its results still
    lie under another name.

    Raises ValueError where other results lie in the place.
    """
    file = task.output / RECORD_FILE
    if not file.is_file():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    outcome = record.pop("outcome")
    differing = sorted(key for key, value in task.record().items() if record.get(key) != value)
    if differing:
        raise ValueError(
            f"{task.output} holds results of another replay: its {', '.join(differing)} differ, see {file}; "
            "remove it or name another output"
        )
    return Outcome(task, **outcome, skipped=True)


def replay(task: Task) -> Iterator[DetectorStatus]:
    """Carry out a task; yields the status of each set that was processed. What an earlier run left unfinished is
    removed first. Raises ValueError for a bag that cannot be replayed."""
    rig = load_yaml(RigConfig, config_file("rigs", task.settings.rig))
    with BagReader(task.bag) as bag:
        detector = detector_for(task.settings, rig)
        with BagWriter(task.output, task.storage, compressed=True, replace_unfinished=True) as result:
            result.add_topic(topics.resolved(topics.LABELS), "vision_msgs/msg/LabelInfo", latched=True)
            replaying = BagReplay(bag, rig, task.settings, detector, result.write, task.markers)
            yield from replaying.run()
            result.add_file(RECORD_FILE, _note(task, replaying.status, bag))


def _note(task: Task, status: DetectorStatus, bag: BagReader) -> str:
    outcome = {"processed": status.sets_processed, "dropped": _counts(status), "losses": bag.losses}
    return json.dumps({**task.record(), "outcome": outcome}, indent=2) + "\n"


def _counts(status: DetectorStatus) -> dict[str, int]:
    return {entry.reason: entry.count for entry in status.sets_dropped}


def _outcome(task: Task, statuses: Iterable[object]) -> Outcome:
    """Carry it out to the end. What is wrong with one bag is no reason to leave out the others."""
    try:
        for _ in statuses:
            pass
        outcome = finished(task)
    except (ValueError, OSError) as error:
        return Outcome(task, error=str(error))
    assert outcome is not None
    return replace(outcome, skipped=False)


def sets_in(task: Task) -> int:
    """Images of the reference camera; 0 where that is not to be found out."""
    try:
        rig = load_yaml(RigConfig, config_file("rigs", task.settings.rig))
        topic = next(camera.image_topic for camera in rig.cameras if camera.name == rig.reference_camera)
        with BagReader(task.bag) as bag:
            return bag.topics[topic].message_count if topic in bag.topics else 0
    except (ValueError, OSError):
        return 0


def run_one_by_one(tasks: Iterable[Task]) -> Iterator[Outcome]:
    for task in tasks:
        with tqdm(total=sets_in(task), desc=task.output.name, unit="set") as bar:
            outcome = _outcome(task, _shown(replay(task), bar))
        yield outcome


def _shown(statuses: Iterable[DetectorStatus], bar: tqdm) -> Iterator[None]:
    for status in statuses:
        bar.update(status.sets_processed + sum(_counts(status).values()) - bar.n)
        yield


def run_in_processes(tasks: list[Task], workers: int) -> Iterator[Outcome]:
    """One bag is one process's work; the bar moves when a bag is done."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    with (
        tqdm(total=sum(map(sets_in, tasks)), desc=f"{len(tasks)} bags", unit="set") as bar,
        ProcessPoolExecutor(workers, get_context("spawn"), _begin, (threads,)) as pool,
    ):
        with starting_workers():
            running = [pool.submit(_replay_silently, task) for task in tasks]
        for future in as_completed(running):
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                raise OSError(
                    "a process that replays was killed; where memory was short, give fewer --workers"
                ) from error
            bar.update(sets_in(outcome.task))
            yield outcome


def _begin(threads: int) -> None:
    follow_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # which backends read when they are imported
    compute_with(threads)


def run_on_ray(tasks: list[Task]) -> Iterator[Outcome]:
    """One bag is one task of the Ray cluster that RAY_ADDRESS names, or of this machine alone. Every machine of it
    must have this environment and see the bags and the output under the same paths. Raises ValueError without Ray."""
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--ray needs Ray, which is not installed here: pip install ray ({error})") from error
    ray.init()
    try:
        waiting = [ray.remote(_replay_silently).remote(task) for task in tasks]
        with tqdm(total=sum(map(sets_in, tasks)), desc=f"{len(tasks)} bags", unit="set") as bar:
            while waiting:
                done, waiting = ray.wait(waiting)
                outcome = ray.get(done[0])
                bar.update(sets_in(outcome.task))
                yield outcome
    finally:
        ray.shutdown()


def _replay_silently(task: Task) -> Outcome:
    return _outcome(task, replay(task))


def tasks_of(bags: list[Path], output: Path, settings: Settings, storage: Storage, markers: bool = False) -> list[Task]:
    """One bag goes to the output itself, several go into it by their names."""
    if len(bags) == 1:
        return [Task(bags[0], output, settings, storage, markers)]
    require_folder_of_bags(output)
    names = [bag.stem if bag.is_file() else bag.name for bag in (bag.resolve() for bag in bags)]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ValueError(f"several bags are called {', '.join(doubles)}; replay each to its own output")
    return [Task(bag, output / name, settings, storage, markers) for bag, name in zip(bags, names, strict=True)]


def run_tasks(tasks: Sequence[Task], workers: int = 1, ray: bool = False) -> Iterator[Outcome]:
    """Those that are finished first, then the others, as they end. workers: bags at once, each in its process. ray:
    see run_on_ray. Raises ValueError for fewer than one worker."""
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    left = []
    for task in tasks:
        outcome = finished(task)
        if outcome is None:
            left.append(task)
        else:
            yield outcome
    if ray:
        yield from run_on_ray(left)
    elif workers == 1:
        yield from run_one_by_one(left)
    else:
        yield from run_in_processes(left, workers)
