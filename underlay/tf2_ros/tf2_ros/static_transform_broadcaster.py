"""Publishes transforms that never change on /tf_static."""

from __future__ import annotations

from collections.abc import Sequence

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


class StaticTransformBroadcaster:
    """Each message carries all transforms sent so far, so that the one latched message tells a late joiner all.

    As upstream's Python: a child frame that was sent once keeps its first transform; later ones are ignored.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos)
        self._transforms: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | Sequence[TransformStamped]) -> None:  # noqa: N802
        """Add one transform or several, and publish all."""
        for added in [transform] if isinstance(transform, TransformStamped) else transform:
            self._transforms.setdefault(added.child_frame_id, added)
        self.pub_tf.publish(TFMessage(transforms=list(self._transforms.values())))
