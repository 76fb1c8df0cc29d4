"""The filter at the head of a chain: a subscription whose messages are its output."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from message_filters.simple_filter import SimpleFilter


class Subscriber(SimpleFilter):
    """Takes the arguments of `Node.create_subscription` but the callback; `sub` is the subscription it made."""

    def __init__(
        self,
        node: Node,
        msg_type: type,
        topic: str,
        *,
        qos_profile: QoSProfile | int = 10,
        callback_group: CallbackGroup | None = None,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        qos_overriding_options: QoSOverridingOptions | None = None,
        raw: bool = False,
    ) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(
            msg_type,
            topic,
            self.callback,
            qos_profile,
            callback_group=callback_group,
            event_callbacks=event_callbacks,
            qos_overriding_options=qos_overriding_options,
            raw=raw,
        )

    def callback(self, message: Any) -> None:
        self.signalMessage(message)

    def getTopic(self) -> str:  # noqa: N802
        return self.topic
