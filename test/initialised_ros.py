"""rclpy for the time of a block. What rclpy.init() returns is a context manager from Kilted on, but not on Jazzy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rclpy


@contextmanager
def initialised_ros() -> Iterator[None]:
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()
