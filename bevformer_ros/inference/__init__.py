"""From surround frames to boxes: the detector as a plain Python object."""
