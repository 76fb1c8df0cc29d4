"""The first scene of a data set in nuScenes' format: python examples/from_nuscenes.py DATAROOT VERSION SPLIT.

Weights that were trained on it find more, such as the official ones: load_detector("bevformerv2_r50_t2", "t2.pth").
"""

import sys
from pathlib import Path

from bevformer_ros.datasets.nuscenes_tables import open_dataset
from bevformer_ros.evaluation.matching import comparison
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.training.nuscenes_dataset import NuscenesDataset

root, version, split = sys.argv[1:]
detector = load_detector("demo")
drives = NuscenesDataset(open_dataset(Path(root), version), split, detector.config)
for labelled in drives.frames(drive=0, first=0, count=drives.lengths[0]):
    boxes = detector(labelled.frame)
    compared = comparison(boxes.select(boxes.scores > 0.3), labelled.truth, distance=2.0)
    print(f"{labelled.frame.stamp_ns}: {compared}")
