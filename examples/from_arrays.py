"""Six images and matrices of your own in, boxes out. Here they come from the simulated world."""

import numpy as np

from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.taxonomy import CLASS_NAMES
from bevformer_ros.types import CameraImage, SurroundFrame

detector = load_detector("demo")
for observation in observations([Drive(seed=9001, seconds=1.0, rate=2.0)]):
    cameras = tuple(
        CameraImage(
            name=camera.name,  # CAM_FRONT, ...: those of detector.config.cameras, in that order
            stamp_ns=camera.stamp_ns,  # when this camera exposed
            image=np.ascontiguousarray(camera.image),  # (height, width, 3) uint8, BGR
            intrinsics=camera.intrinsics,  # (3, 3) in pixels of this image
            camera_from_bev=camera.camera_from_bev,  # (4, 4): BEV frame (x right, y forward, z up) to optical frame
        )
        for camera in observation.frame.cameras
        if camera is not None
    )
    # world_from_bev: (4, 4) pose of the BEV frame in a frame that stays put; history is moved along with it.
    frame = SurroundFrame(observation.frame.stamp_ns, cameras, observation.frame.world_from_bev)
    boxes = detector(frame)
    best = boxes.select(boxes.scores > 0.4)
    for label, score, (x, y, _) in zip(best.labels, best.scores, best.centers, strict=True):
        print(f"{frame.stamp_ns} {CLASS_NAMES[label]} {score:.2f} at {x:.1f} m right, {y:.1f} m ahead")
