"""Tracks of what the detector finds, with ids that stay: the tracker takes the detector's boxes and the car's pose."""

from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.taxonomy import CLASS_NAMES
from bevformer_ros.tracking.tracker import Tracker

detector, tracker = load_detector("demo"), Tracker()
seen: dict[int, int] = {}
for observation in observations([Drive(seed=9001, seconds=3.0, rate=2.0)]):
    frame = observation.frame  # yours: see from_arrays.py
    tracks = tracker(detector(frame), frame.world_from_bev)
    for identity in tracks.ids.tolist():
        seen[identity] = seen.get(identity, 0) + 1
    nearest = tracks.boxes.select((abs(tracks.boxes.centers[:, :2]) < 15).all(axis=1))
    print(f"{frame.stamp_ns}: {len(tracks.ids)} tracks; near: {[CLASS_NAMES[label] for label in nearest.labels]}")
print(f"{len(seen)} objects, the longest seen in {max(seen.values(), default=0)} sets")
