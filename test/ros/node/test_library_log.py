"""Lines of the library's Python loggers as /rosout shows them."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

import rclpy
from rcl_interfaces.msg import Log
from rclpy.executors import SingleThreadedExecutor
from support import SMALLEST, wait_until

from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.ros.node.library_log import LibraryLog

LIBRARY = logging.getLogger("bevformer_ros.inference.somewhere")


def number(level: int | bytes) -> int:
    """A ROS byte is one or the other, depending on the distribution."""
    return level if isinstance(level, int) else level[0]


@pytest.fixture
def rosout():
    """(node, lines): /rosout's (severity, text) of this node, filled by lines()."""
    rclpy.init()
    node, observer = rclpy.create_node("talker"), rclpy.create_node("observer", enable_rosout=False)
    heard: list[tuple[int, str]] = []

    def take(message: Log) -> None:
        if message.name == "talker":
            heard.append((number(message.level), message.msg))

    observer.create_subscription(Log, "/rosout", take, 100)
    executor = SingleThreadedExecutor()
    executor.add_node(observer)

    def lines(count: int) -> list[tuple[int, str]]:
        def enough() -> bool:
            executor.spin_once(timeout_sec=0.01)
            return len(heard) >= count

        wait_until(enough, f"{count} lines, heard {heard}")
        return heard

    wait_until(lambda: observer.count_publishers("/rosout"), "the talker's /rosout")
    wait_until(lambda: node.count_subscribers("/rosout"), "the observer")
    yield node, lines
    executor.shutdown()
    rclpy.shutdown()


def test_each_severity_arrives_as_its_own(rosout):
    node, lines = rosout
    library_log = LibraryLog(node)
    LIBRARY.info("history reset: %s", "gap")
    LIBRARY.warning("no Triton")
    LIBRARY.error("broken")
    LIBRARY.critical("dead")
    library_log.remove()
    LIBRARY.error("after the node's end")
    node.get_logger().info("last")
    info, warning, error, fatal = map(number, (Log.INFO, Log.WARN, Log.ERROR, Log.FATAL))
    assert lines(5) == [
        (info, "history reset: gap"),
        (warning, "no Triton"),
        (error, "broken"),
        (fatal, "dead"),
        (info, "last"),
    ]


def test_what_the_detector_says_is_heard(rosout):
    node, lines = rosout
    library_log = LibraryLog(node)
    load_detector(SMALLEST).reset("test")
    library_log.remove()
    texts = [text for _, text in lines(2)]
    assert texts == [
        "smallest has RANDOM weights: it runs, but its boxes mean nothing",
        "temporal history reset: test",
    ]


def test_nothing_stays_behind(rosout):
    node, _ = rosout
    library = logging.getLogger("bevformer_ros")
    before = (list(library.handlers), library.level)
    LibraryLog(node).remove()
    assert (library.handlers, library.level) == before
