"""Why nothing arrives on a topic, as far as the ROS graph tells: nobody there, another type, another QoS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

_REMEDY_OF_TYPE = {
    "sensor_msgs/msg/CompressedImage": "set cameras.{name}.compressed to true, or `compressed: true` in the rig",
    "sensor_msgs/msg/Image": "set cameras.{name}.compressed to false, or leave `compressed` out of the rig",
}


class Publisher(NamedTuple):
    """incompatible: which QoS does not fit the subscription, empty if all does."""

    kind: str
    incompatible: str


class Expected(NamedTuple):
    """A topic that a camera's data should come on. parameter: which part of the camera names it."""

    camera: str
    parameter: str
    topic: str
    kind: str


def topic_fault(expected: Expected, publishers: Sequence[Publisher], graph: Mapping[str, Sequence[str]]) -> str:
    """What is wrong and what to do; empty where data should be arriving. graph: all topics that are published, with
    their types."""
    key = f"{expected.topic} (cameras.{expected.camera}.{expected.parameter})"
    if not publishers:
        return f"nobody publishes {key}{_nearest(expected, graph)}"
    if all(publisher.kind != expected.kind for publisher in publishers):
        kind = publishers[0].kind
        remedy = _REMEDY_OF_TYPE.get(kind, "name another topic").format(name=expected.camera)
        return f"{key} is published as {kind}, expected {expected.kind}; {remedy}"
    fitting = [publisher for publisher in publishers if publisher.kind == expected.kind]
    if all(publisher.incompatible for publisher in fitting):
        return f"the QoS of {key} does not fit: {fitting[0].incompatible}; set image_reliability to best_effort"
    return ""


def _nearest(expected: Expected, graph: Mapping[str, Sequence[str]]) -> str:
    of_kind = [topic for topic, kinds in graph.items() if expected.kind in kinds]
    others = [topic for topic, kinds in graph.items() if any(kind in _REMEDY_OF_TYPE for kind in kinds)]
    for topics, note in ((of_kind, ""), (others, ", of another type")):
        near = get_close_matches(expected.topic, topics, n=2, cutoff=0.6)
        if near:
            return f"; the nearest of its kind{note}: {', '.join(near)}. Set the parameter, the rig or a remapping"
    if of_kind:
        return f"; there are {', '.join(sorted(of_kind)[:6])}. Set the parameter, the rig or a remapping"
    return "; start the camera's driver, or check ROS_DOMAIN_ID and discovery"
