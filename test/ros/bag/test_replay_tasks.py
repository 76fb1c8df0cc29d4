"""Bags through the detector without a graph: complete, deterministic, resumable."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from rig_publisher import DetectorListener
from support import SMALLEST

from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.bag.replay_record import RECORD_FILE
from bevformer_ros.ros.bag.replay_tasks import Task, finished, run_tasks
from bevformer_ros.ros.bag.replay_tasks import replay as replay_task
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.conversions import detections_from_messages, stamp_from_ns, stamp_to_ns
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.taxonomy import CLASS_NAMES

DRIVE = Drive(seed=3, seconds=2.0, rate=4.0, size=(160, 90))
SETTINGS = Settings(rig=DEFAULT_RIG, model=str(SMALLEST), device="cpu", score_threshold=0.0)
DETECTIONS, KINEMATICS, STATUS = map(topics.resolved, (topics.DETECTIONS, topics.KINEMATICS, topics.STATUS))
TRACKS, TRACK_KINEMATICS, TRACK_MARKERS = map(
    topics.resolved, (topics.TRACKS, topics.TRACK_KINEMATICS, topics.TRACK_MARKERS)
)
RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "drive"
    simulate(path, RIG, DRIVE)
    return path


def replayed(bag, output, settings=SETTINGS, markers=False):
    for _ in replay_task(Task(bag, output, settings, markers=markers)):
        pass
    return output


def messages(bag, *names):
    with BagReader(bag) as reader:
        return list(reader.messages(names))


def at_stamp(message, stamp_ns):
    """The same message as if made then."""
    for part in message.transforms if hasattr(message, "transforms") else [message]:
        part.header.stamp = stamp_from_ns(stamp_ns)
    return message


def resident_mebibytes():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20


def altered(source, target, change, storage="mcap"):
    """A copy of a bag, each message as change(message) has it, or left out where that is None."""
    with BagReader(source) as old, BagWriter(target, storage) as new:
        for name, topic in old.topics.items():
            new.add_topic(name, topic.type_name, latched=topic.latched)
        for message in filter(None, map(change, old.messages())):
            new.write_raw(message.topic, message.type_name, message.data, message.stamp_ns)
    return target


def test_every_set_comes_out_at_its_stamp(drive, tmp_path):
    output = replayed(drive, tmp_path / "out")
    boxes, extra, statuses = (messages(output, name) for name in (DETECTIONS, KINEMATICS, STATUS))
    assert [entry.stamp_ns for entry in boxes] == DRIVE.reference_stamps
    assert [stamp_to_ns(deserialize(entry).header.stamp) for entry in boxes] == DRIVE.reference_stamps
    assert [deserialize(entry).header for entry in boxes] == [deserialize(entry).header for entry in extra]
    assert all(deserialize(entry).detections for entry in boxes)
    (labels,) = messages(output, topics.resolved(topics.LABELS))
    assert [entry.class_name for entry in deserialize(labels).class_map] == list(CLASS_NAMES)
    last = deserialize(statuses[-1])
    assert (last.sets_processed, len(last.sets_dropped), last.history_depth) == (8, 0, 1)
    assert [entry.stage for entry in last.latencies][:2] == ["decode_images", "wait_for_transforms"]
    assert last.total_latency_ms == pytest.approx(sum(entry.milliseconds for entry in last.latencies), rel=1e-5)


@pytest.fixture
def tracking_config(tmp_path):
    """Every box begins a track: random weights give low scores."""
    file = tmp_path / "tracking.yaml"
    file.write_text("{high_score: 0, low_score: 0, confirm_score: 0}")
    return str(file)


def test_two_runs_give_identical_bytes(drive, tmp_path, tracking_config):
    names = (DETECTIONS, KINEMATICS, topics.resolved(topics.MARKERS), TRACKS, TRACK_KINEMATICS, TRACK_MARKERS)
    settings = replace(SETTINGS, tracking=True, tracking_config=tracking_config)
    first, second = (messages(replayed(drive, tmp_path / name, settings, True), *names) for name in ("first", "second"))
    assert first == second
    assert len(first) == len(names) * len(DRIVE.reference_stamps)


def test_no_markers_unless_asked_for(drive, tmp_path):
    with BagReader(replayed(drive, tmp_path / "out", replace(SETTINGS, tracking=True))) as bag:
        assert TRACKS in bag.topics
        assert not [name for name in bag.topics if "markers" in name]
        assert bag.topics[topics.resolved(topics.LABELS)].latched


def test_results_are_compressed(drive, tmp_path):
    """As the header of each chunk says."""
    (file,) = replayed(drive, tmp_path / "out").glob("*.mcap")
    assert b"zstd" in file.read_bytes()
    assert messages(tmp_path / "out", DETECTIONS)


def test_tracks_go_on_from_set_to_set(drive, tmp_path, tracking_config):
    output = replayed(drive, tmp_path / "out", replace(SETTINGS, tracking=True, tracking_config=tracking_config))
    ids = [{box.id for box in deserialize(entry).detections} for entry in messages(output, TRACKS)]
    assert len(ids) == len(DRIVE.reference_stamps)
    assert ids[0] and ids[0] & ids[1]


def test_no_tracks_unless_asked_for(drive, tmp_path):
    with BagReader(replayed(drive, tmp_path / "out")) as bag:
        assert TRACKS not in bag.topics


@pytest.mark.parametrize("late_ms", [100, 190])
def test_late_transforms_change_nothing(drive, tmp_path, late_ms):
    """As a localisation publishes them: behind the images. The set waits by reading on, and none overtakes it."""

    def late(message):
        return message._replace(stamp_ns=message.stamp_ns + late_ms * 1_000_000 * (message.topic == "/tf"))

    bag = altered(drive, tmp_path / "late", late)
    ours, usual = (replayed(path, tmp_path / name) for path, name in ((bag, "out"), (drive, "usual")))
    assert messages(ours, DETECTIONS) == messages(usual, DETECTIONS)


def test_storage_changes_nothing(drive, tmp_path):
    sqlite = altered(drive, tmp_path / "sqlite", lambda message: message, "sqlite3")
    for _ in replay_task(Task(sqlite, tmp_path / "out", SETTINGS, "sqlite3")):
        pass
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".db3", ".json"}
    assert messages(tmp_path / "out", DETECTIONS) == messages(replayed(drive, tmp_path / "usual"), DETECTIONS)


def test_sets_without_transforms_are_dropped_and_counted(drive, tmp_path):
    first, last = DRIVE.reference_stamps[2], DRIVE.reference_stamps[5]
    bag = altered(drive, tmp_path / "cut", lambda m: None if m.topic == "/tf" and m.stamp_ns >= last else m)
    output = replayed(bag, tmp_path / "out")
    assert finished(Task(bag, output, SETTINGS)).dropped == {"no_transform": 3}
    assert len(messages(output, DETECTIONS)) == 5
    assert len(messages(output, STATUS)) == 8
    assert first in [entry.stamp_ns for entry in messages(output, DETECTIONS)]


def test_the_last_set_waits_no_longer_than_the_bag_lasts(drive, tmp_path):
    """A camera that falls silent: incomplete sets go unless fewer cameras are allowed."""
    topic, silent_from = RIG.cameras[5].image_topic, DRIVE.reference_stamps[4]
    bag = altered(drive, tmp_path / "silent", lambda m: None if m.topic == topic and m.stamp_ns >= silent_from else m)
    assert len(messages(replayed(bag, tmp_path / "six"), DETECTIONS)) < 8
    five = replayed(bag, tmp_path / "five", replace(SETTINGS, minimum_cameras=5))
    assert len(messages(five, DETECTIONS)) == 8
    assert list(deserialize(messages(five, STATUS)[-1]).cameras_missing) == [RIG.cameras[5].name]


def test_future_frames_are_there_in_a_recording(drive, tmp_path):
    model = tmp_path / "future.yaml"
    model.write_text(SMALLEST.read_text(encoding="utf-8").replace("[-1, 0]", "[-1, 0, 1]"), encoding="utf-8")
    output = replayed(drive, tmp_path / "out", replace(SETTINGS, model=str(model)))
    assert [entry.stamp_ns for entry in messages(output, DETECTIONS)] == DRIVE.reference_stamps


def test_a_finished_replay_is_recognised_and_a_broken_one_done_again(drive, tmp_path, capsys):
    task = Task(drive, tmp_path / "out", SETTINGS)
    assert finished(task) is None
    broken = replay_task(task)
    next(broken)
    broken.close()  # type: ignore[attr-defined] # it is a generator
    assert finished(task) is None, "one set is not all"
    replayed(drive, task.output)
    assert finished(task).processed == 8
    with pytest.raises(ValueError, match="its settings differ"):
        finished(replace(task, settings=replace(SETTINGS, score_threshold=0.5)))
    (task.output / RECORD_FILE).unlink()
    with pytest.raises(ValueError, match="exists already"):
        replayed(drive, task.output)


def test_bags_without_images_of_the_rig_are_refused(drive, tmp_path):
    bag = altered(drive, tmp_path / "raw", lambda message: message if message.topic.startswith("/tf") else None)
    with pytest.raises(ValueError, match="no sets|has no"):
        replayed(bag, tmp_path / "out", replace(SETTINGS, rig="nuscenes"))


def test_command_replays_several_bags_at_once_and_resumes(drive, tmp_path, capsys):
    other = altered(drive, tmp_path / "other", lambda message: message)
    command = [
        "replay",
        str(drive),
        str(other),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(SMALLEST),
        "--workers",
        "2",
    ]
    command += ["--device", "cpu", "--score-threshold", "0"]
    assert main(command) == 0
    assert capsys.readouterr().out.count("done, 8 sets") == 2
    assert messages(tmp_path / "out" / "drive", DETECTIONS) == messages(tmp_path / "out" / "other", DETECTIONS)
    assert json.loads((tmp_path / "out" / "other" / RECORD_FILE).read_text())["outcome"]["processed"] == 8
    assert main(command) == 0
    assert capsys.readouterr().out.count("was done already, 8 sets") == 2


def test_one_bad_bag_is_named_and_the_others_are_replayed(drive, tmp_path, capsys):
    """A camera's topic that carries something else, and a file that is no bag."""
    topic = RIG.cameras[0].image_topic
    with BagReader(drive) as old, BagWriter(tmp_path / "strange") as new:
        for message in old.messages():
            kind, data = ("std_msgs/msg/String", b"\0\1\0\0") if message.topic == topic else message[1::2]
            new.write_raw(message.topic, kind, data, message.stamp_ns)
    (tmp_path / "none.mcap").write_bytes(b"no bag")
    bags = [tmp_path / "none.mcap", tmp_path / "strange", drive]
    words = ["-o", tmp_path / "out", "--model", SMALLEST, "--device", "cpu"]
    assert main(["replay", *map(str, [*bags, *words])]) == 1
    printed = capsys.readouterr()
    assert f"{tmp_path / 'out' / 'drive'}: done, 8 sets" in printed.out
    assert f"{tmp_path / 'none.mcap'} was not replayed: {tmp_path / 'none.mcap'} holds no readable" in printed.err
    assert f"{tmp_path / 'strange'} has no images on {topic}; it has" in printed.err
    assert f"{topic} (std_msgs/msg/String)" in printed.err


def test_an_interrupted_replay_is_not_evaluated_for_a_whole_one(drive, tmp_path, capsys):
    task = Task(drive, tmp_path / "out", SETTINGS)
    broken = replay_task(task)
    for _ in range(3):
        next(broken)
    broken.close()  # type: ignore[attr-defined] # it is a generator
    assert main(["evaluate", str(task.output)]) == 1
    assert f"{task.output} is no bag: it does not exist; {task.output}.partial was left by" in capsys.readouterr().err
    assert main(["evaluate", f"{task.output}.partial", "--ground-truth", str(drive)]) == 0
    printed = capsys.readouterr().out
    assert "5 of 8 samples have no result and count as empty." in printed
    assert f"INCOMPLETE: not all of the bags could be read\n{task.output}.partial has no metadata.yaml" in printed
    assert main(["replay", str(drive), "-o", str(task.output), "--model", str(SMALLEST), "--device", "cpu"]) == 0
    assert not Path(f"{task.output}.partial").exists()
    bags = [str(drive), str(altered(drive, tmp_path / "other", lambda message: message))]
    assert main(["replay", *bags, "-o", str(task.output), "--model", str(SMALLEST), "--device", "cpu"]) == 1
    assert f"{task.output} is a bag, expected a folder for several" in capsys.readouterr().err


def test_messages_that_cannot_be_read_cost_their_sets_alone(drive, tmp_path, capsys):
    topic, bad = RIG.cameras[2].image_topic, DRIVE.reference_stamps[2:4]
    near = range(bad[0] - 60_000_000, bad[1] + 60_000_000)
    bag = altered(
        drive, tmp_path / "bad", lambda m: m._replace(data=b"??") if m.topic == topic and m.stamp_ns in near else m
    )
    words = ["-o", str(tmp_path / "out"), "--model", str(SMALLEST), "--device", "cpu", "--score-threshold", "0"]
    assert main(["replay", str(bag), *words]) == 0
    printed = capsys.readouterr().out
    assert "done, 6 sets; dropped 2 incomplete; " in printed
    assert f"{bag}: 2 messages on {topic} could not be used" in printed
    assert main(["replay", str(bag), *words]) == 0
    assert f"{bag}: 2 messages on {topic} could not be used" in capsys.readouterr().out
    assert len(messages(tmp_path / "out", DETECTIONS)) == 6


def test_a_torn_bag_is_replayed_up_to_the_damage(drive, tmp_path, caplog):
    content = (drive / "drive.mcap").read_bytes()
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(content[: len(content) // 2])
    outcome = next(run_tasks([Task(torn, tmp_path / "out", SETTINGS)]))
    assert 1 < outcome.processed < 8
    assert any(f"{torn} is damaged or unfinished" in line for line in outcome.losses)
    assert len(messages(tmp_path / "out", DETECTIONS)) == outcome.processed


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--score-threshold", "1.5"], "score_threshold is 1.5, expected -1 to 1"),
        (["--device", "tpu"], "device is 'tpu', expected auto"),
        (["--workers", "0"], "workers is 0, expected at least 1"),
        (["--rig", "bicycle"], "'bicycle' is neither a path"),
    ],
)
def test_what_the_command_refuses(drive, tmp_path, capsys, words, complaint):
    assert main(["replay", str(drive), "-o", str(tmp_path / "out"), *words]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.integration
def test_equals_what_the_live_node_publishes(drive, tmp_path, start_process, tracking_config):
    """Same bag, once over DDS through the node in its own process, once through the replay: the same boxes.

    Where tf2 and the replay's own tree put the car differs by the rounding of a float64.
    """
    bevformer = [sys.executable, "-m", "bevformer_ros"]
    settings = {"rig": DEFAULT_RIG, "model": SMALLEST, "device": "cpu", "score_threshold": 0.0}
    settings["tracking_config"] = tracking_config
    live = {**settings, "tracking": "true", "use_sim_time": "true", "image_reliability": "reliable"}
    words = [word for name, value in live.items() for word in ("-p", f"{name}:={value}")]
    node = start_process(
        [sys.executable, "-m", "bevformer_ros.ros.node.process", "--ros-args", *words], OMP_NUM_THREADS="1"
    )
    with DetectorListener(outputs=["detections", "kinematics", "status", "tracks", "track_kinematics"]) as listener:
        node.wait_for_output("detecting with smallest")
        listener.wait_for_outputs()
        assert start_process([*bevformer, "play", drive, "--rate", "0.5"]).wait() == 0
        statuses = listener.wait_for("status", 8)
        boxes, kinematics = listener.wait_for("detections", 8), listener.wait_for("kinematics", 8)
        tracks, track_kinematics = listener.wait_for("tracks", 8), listener.wait_for("track_kinematics", 8)
    assert [len(status.sets_dropped) for status in statuses] == [0] * 8
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    output = tmp_path / "out"
    assert (
        start_process([*bevformer, "replay", drive, "-o", output, "--tracking", *options], OMP_NUM_THREADS="1").wait()
        == 0
    )
    assert all(entry.detections for entry in boxes)
    assert all(entry.detections for entry in tracks)
    require_same(messages(output, DETECTIONS), messages(output, KINEMATICS), boxes, kinematics)
    require_same(messages(output, TRACKS), messages(output, TRACK_KINEMATICS), tracks, track_kinematics)


def require_same(boxes, kinematics, live_boxes, live_kinematics):
    for entry, extra, *live in zip(boxes, kinematics, live_boxes, live_kinematics, strict=True):
        replayed = deserialize(entry), deserialize(extra)
        for ours, theirs in zip(replayed, live, strict=True):
            assert ours.header == theirs.header
            assert [each.id for each in ours.detections] == [each.id for each in theirs.detections]
        found, expected = detections_from_messages(*replayed), detections_from_messages(*live)
        for name in ("scores", "labels", "attributes", "from_proposal"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        for name in ("centers", "sizes", "yaws", "velocities"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_ray_replays_bags_as_tasks(drive, tmp_path, capsys):
    pytest.importorskip("ray", reason="needs Ray (pip install ray)")
    other = altered(drive, tmp_path / "other", lambda message: message)
    words = ["--model", str(SMALLEST), "--device", "cpu", "--score-threshold", "0", "--ray"]
    assert main(["replay", str(drive), str(other), "-o", str(tmp_path / "out"), *words]) == 0
    assert capsys.readouterr().out.count("done, 8 sets") == 2
    assert messages(tmp_path / "out" / "drive", DETECTIONS) == messages(tmp_path / "out" / "other", DETECTIONS)


def test_without_ray_the_command_says_what_is_missing(drive, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["replay", str(drive), "-o", str(tmp_path / "out"), "--ray"]) == 1
    assert "pip install ray" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_bag(drive, tmp_path):
    """A minute of it, the same two seconds again and again; what is written stays on the disk."""
    minute, length_ns = tmp_path / "minute", 2_000_000_000
    with BagReader(drive) as bag, BagWriter(minute) as longer:
        longer.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        for round_ in range(30):
            for entry in bag.messages():
                if not entry.topic.startswith("/ground_truth"):
                    stamp_ns = entry.stamp_ns + round_ * length_ns
                    longer.write(entry.topic, at_stamp(deserialize(entry), stamp_ns), stamp_ns)
    used = [resident_mebibytes() for _ in replay_task(Task(minute, tmp_path / "out", SETTINGS))]
    assert len(used) > 200
    print(f"{used[40]:.1f} MiB after 40 sets, {used[-1]:.1f} MiB after {len(used)}")
    assert used[-1] - used[40] < 8
