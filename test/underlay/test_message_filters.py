"""The filter protocol, without a node."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("message_filters")

from message_filters import SimpleFilter


def test_a_filter_without_callbacks_takes_messages():
    SimpleFilter().signalMessage("message")


def test_callbacks_are_called_in_order_with_messages_and_then_their_own_arguments():
    calls: list[tuple] = []
    simple = SimpleFilter()
    connections = [simple.registerCallback(lambda *given: calls.append(given), *own) for own in ((), (1, 2))]
    simple.signalMessage("a", "b")
    assert calls == [("a", "b"), ("a", "b", 1, 2)]
    assert len(set(connections)) == 2


def test_filters_can_be_chained():
    first, second = SimpleFilter(), SimpleFilter()
    first.registerCallback(second.signalMessage)
    seen: list[tuple] = []
    second.registerCallback(lambda *messages: seen.append(messages))
    first.signalMessage("a")
    assert seen == [("a",)]
