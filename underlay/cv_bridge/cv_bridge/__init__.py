"""What bevformer_ros uses of upstream's cv_bridge (Python), where no ROS 2 is installed.

Present: CvBridge.imgmsg_to_cv2 for unpadded images in the machine's byte order, encoding_to_dtype_with_channels, and
CvBridgeError. "passthrough" works for mono, bgr, rgb, bgra, rgba and bayer in 8 and 16 bits, yuv422, yuv422_yuy2 and
every generic type such as 8UC3, 16UC1 or 32FC1; conversion for those with a colour meaning, to mono, bgr and rgb in 8
and 16 bits. As upstream, a generic type is no colour: 8UC3 to bgr8 is refused.

Absent: conversion to bgra, rgba and bayer, nv21 and nv24, compressed images, messages from arrays, the other look-ups.
"""

from cv_bridge.core import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]
