"""The boxes of a bag's moments without a ROS graph: python examples/from_bag.py BAG (of `simulate`, say)."""

import sys
from pathlib import Path

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.types import SECOND_NS

rig = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))  # or the path of your rig's YAML
detector = load_detector("demo")
with BagReader(Path(sys.argv[1])) as bag:
    scene = BagScene(bag, rig)
    for stamp_ns in range(bag.start_ns + SECOND_NS, bag.end_ns - SECOND_NS, SECOND_NS // 2):
        boxes = detector(scene.frame(stamp_ns))  # the images nearest to the stamp, poses from the bag's tf
        print(f"{(stamp_ns - bag.start_ns) / SECOND_NS:.1f} s: {(boxes.scores > 0.3).sum()} boxes")
