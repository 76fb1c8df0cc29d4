"""The cameras of a bag."""

from __future__ import annotations

from pathlib import Path

from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.rig_survey import SURVEYED_TYPES, TRANSFORMS, RigSurvey
from bevformer_ros.types import SECOND_NS


def survey_of_bag(path: Path, seconds: float) -> RigSurvey:
    """From the first seconds of the bag; transforms that hold at every time from all of it."""
    survey = RigSurvey()
    with BagReader(path) as bag:
        types = {topic: entry.type_name for topic, entry in bag.topics.items() if entry.type_name in SURVEYED_TYPES}
        stop_ns = bag.start_ns + round(seconds * SECOND_NS)
        latched = [topic for topic, kind in types.items() if kind == TRANSFORMS and topic.endswith("tf_static")]
        for topics, end_ns in ((latched, None), ([topic for topic in types if topic not in latched], stop_ns)):
            for message in bag.messages(topics, None, end_ns) if topics else ():
                survey.note(message.topic, message.type_name, deserialize(message))
    return survey
