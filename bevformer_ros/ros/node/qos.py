"""Standard parameters that override the QoS of a topic, such as qos_overrides./topic.subscription.reliability."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

PREFIX = "qos_overrides."
_POLICIES = {
    QoSPolicyKind.HISTORY: Parameter.Type.STRING,
    QoSPolicyKind.DEPTH: Parameter.Type.INTEGER,
    QoSPolicyKind.RELIABILITY: Parameter.Type.STRING,
}
_WORDS = {"history": ("keep_last", "keep_all"), "reliability": ("best_effort", "reliable")}


def publisher_overrides() -> QoSOverridingOptions:
    return QoSOverridingOptions(list(_POLICIES))


def subscription_overrides(node: Node, topic: str) -> QoSOverridingOptions:
    """Of the policies that somebody overrides alone: rclpy declares the parameter of a policy read-only, with the value
    of the first activation, and what image_reliability says at the next one would come to nothing."""
    prefix = f"{PREFIX}{node.resolve_topic_name(topic)}.subscription."
    return QoSOverridingOptions(
        [policy for policy, kind in _POLICIES.items() if _is_overridden(node, prefix + policy.name.lower(), kind)]
    )


def _is_overridden(node: Node, name: str, kind: Parameter.Type) -> bool:
    if node.has_parameter(name):
        return True
    declared: Parameter[Any] = node.declare_parameter(name, kind)
    node.undeclare_parameter(name)
    return declared.value is not None


def fault(name: str, value: Any) -> str:
    """What is wrong with such a parameter; empty where nothing is, or nothing was set."""
    if value is None:
        return ""
    policy = name.rpartition(".")[2]
    words = _WORDS.get(policy, ())
    if words and value not in words:
        return f"{name} is {value!r}, expected one of {', '.join(words)}"
    return f"{name} is {value}, expected 1 or more" if policy == "depth" and value < 1 else ""
