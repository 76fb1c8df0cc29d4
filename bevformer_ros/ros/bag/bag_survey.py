"""The cameras of a bag."""

from __future__ import annotations

from pathlib import Path

from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.messages import CameraInfo, CompressedImage, Image, TFMessage
from bevformer_ros.ros.rig_survey import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, TRANSFORMS, RigSurvey
from bevformer_ros.types import SECOND_NS

_KINDS = {IMAGE: Image, COMPRESSED_IMAGE: CompressedImage, CAMERA_INFO: CameraInfo, TRANSFORMS: TFMessage}


def survey_of_bag(path: Path, seconds: float) -> RigSurvey:
    """From the first seconds of the bag; transforms that hold at every time from all of it."""
    survey = RigSurvey()
    with BagReader(path) as bag:
        types = {topic: entry.type_name for topic, entry in bag.topics.items() if entry.type_name in _KINDS}
        latched = [topic for topic, kind in types.items() if kind == TRANSFORMS and topic.endswith("tf_static")]
        passing = [topic for topic in types if topic not in latched]
        for topics, stop_ns in ((latched, None), (passing, bag.start_ns + round(seconds * SECOND_NS))):
            kinds = {topic: (_KINDS[types[topic]],) for topic in topics}
            for entry, message in bag.objects(kinds, None, stop_ns) if topics else ():
                survey.note(entry.topic, entry.type_name, message)
    return survey
