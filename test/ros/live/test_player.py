"""The player and the recorder over real DDS: what a bag holds arrives, in order, at its own pace."""

import sys
import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from support import wait_until

from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.conversions import header_of, stamp_to_ns
from bevformer_ros.ros.live.player import BagPlayer, PlayOptions
from bevformer_ros.types import MILLISECOND_NS

START_NS = 1_700_000_000_000_000_000
COUNT = 20
COMMAND = [sys.executable, "-m", "bevformer_ros"]


@pytest.fixture(scope="module")
def bag_path(tmp_path_factory):
    """A latched word, then an image every 20 ms."""
    path = tmp_path_factory.mktemp("bags") / "bag"
    with BagWriter(path) as bag:
        bag.add_topic("/played/latched", "std_msgs/msg/String", latched=True)
        bag.write("/played/latched", String(data="always"), START_NS)
        for index in range(COUNT):
            stamp = START_NS + index * 20 * MILLISECOND_NS
            image = Image(header=header_of(stamp, "camera"), height=90, width=160, step=480, encoding="bgr8")
            image.data.frombytes(bytes([index]) * (480 * 90))
            bag.write("/played/image", image, stamp)
    return path


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def listener(context):
    """Collects messages by topic, in a thread of its own."""
    node = rclpy.create_node("listener", context=context)
    heard: dict[str, list] = {"/played/latched": [], "/played/image": [], "/clock": []}
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(String, "/played/latched", heard["/played/latched"].append, latched)
    node.create_subscription(Image, "/played/image", heard["/played/image"].append, 50)
    node.create_subscription(Clock, "/clock", heard["/clock"].append, qos_profile_sensor_data)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    yield heard
    executor.shutdown()
    spinning.join()
    node.destroy_node()


@pytest.fixture
def player_node(context):
    node = rclpy.create_node("player", context=context)
    yield node
    node.destroy_node()


def test_an_empty_bag_is_refused(player_node, tmp_path):
    with BagWriter(tmp_path / "bag"):
        pass
    with BagReader(tmp_path / "bag") as bag, pytest.raises(ValueError, match="holds 0 messages"):
        BagPlayer(player_node, bag, PlayOptions())


def test_options_are_checked(player_node, bag_path):
    with pytest.raises(ValueError, match="rate is 0"):
        PlayOptions(rate=0)
    with pytest.raises(ValueError, match="start_offset_s is -1"):
        PlayOptions(start_offset_s=-1)
    with BagReader(bag_path) as bag, pytest.raises(ValueError, match=r"no message after 9 s; it holds 21 messages"):
        BagPlayer(player_node, bag, PlayOptions(start_offset_s=9))


def test_without_subscribers_it_says_which_are_missing(player_node, bag_path):
    with BagReader(bag_path) as bag:
        player = BagPlayer(player_node, bag, PlayOptions(wait_timeout_s=0.1))
        with pytest.raises(TimeoutError, match=r"nobody subscribed to /played/image within 0\.1 s"):
            player.wait_for_subscribers()
        player = BagPlayer(player_node, bag, PlayOptions(wait_for=("/absent",)))
        with pytest.raises(ValueError, match="no topic /absent to wait for"):
            player.wait_for_subscribers()


@pytest.mark.integration
def test_everything_arrives_with_the_clock_ahead_of_it(player_node, listener, bag_path):
    options = PlayOptions(rate=2.0, wait_for=("/played/latched", "/played/image"))
    with BagReader(bag_path) as bag:
        player = BagPlayer(player_node, bag, options)
        player.wait_for_subscribers()
        player.play()
        expected = [deserialize(entry) for entry in bag.messages(["/played/image"])]
    wait_until(lambda: len(listener["/played/image"]) == COUNT, "all images")
    assert listener["/played/image"] == expected
    assert [word.data for word in listener["/played/latched"]] == ["always"]
    clock = [stamp_to_ns(message.clock) for message in listener["/clock"]]
    assert clock == sorted(clock)
    assert clock[-1] == START_NS + (COUNT - 1) * 20 * MILLISECOND_NS


@pytest.mark.integration
def test_start_offset_leaves_out_images_but_not_latched_messages(player_node, listener, bag_path):
    options = PlayOptions(rate=4.0, start_offset_s=0.3, wait_for=("/played/latched", "/played/image"))
    with BagReader(bag_path) as bag:
        player = BagPlayer(player_node, bag, options)
        player.wait_for_subscribers()
        player.play()
    wait_until(lambda: len(listener["/played/image"]) == 5, "the last five images")
    assert stamp_to_ns(listener["/played/image"][0].header.stamp) == START_NS + 300 * MILLISECOND_NS
    wait_until(lambda: listener["/played/latched"], "the latched message")


@pytest.mark.integration
def test_recorder_stores_what_the_player_sends(bag_path, tmp_path, start_process):
    """Both as commands: the player waits for the recorder, SIGINT ends the recorder, the bag holds every message."""
    topics = ["/played/image", "/played/latched"]
    recorder = start_process([*COMMAND, "record", *topics, "-o", tmp_path / "copy", "--use-sim-time"])
    player = start_process([*COMMAND, "play", bag_path, "--wait-for", *topics])
    assert player.wait() == 0, player.output
    recorder.wait_for_output("recording /played/latched")
    assert recorder.interrupt() == 0, recorder.output
    assert f"/played/image: {COUNT} messages" in recorder.output
    with BagReader(bag_path) as original, BagReader(tmp_path / "copy") as copy:
        assert copy.topics == original.topics
        for topic in topics:
            sent, stored = ([deserialize(entry) for entry in bag.messages([topic])] for bag in (original, copy))
            assert stored == sent
        assert START_NS <= copy.start_ns <= copy.end_ns <= START_NS + COUNT * 20 * MILLISECOND_NS


@pytest.mark.integration
def test_looping_steps_the_clock_back(bag_path, listener, start_process):
    player = start_process([*COMMAND, "play", bag_path, "--loop", "--rate", "4"])
    wait_until(lambda: len(listener["/played/image"]) > COUNT, "the second round")
    assert player.interrupt() == 130, player.output
    clock = [stamp_to_ns(message.clock) for message in listener["/clock"]]
    assert clock != sorted(clock)
