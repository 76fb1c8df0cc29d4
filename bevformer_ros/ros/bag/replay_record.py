"""What a replay notes beside its results."""

from __future__ import annotations

import json
from pathlib import Path

from bevformer_ros.ros.bag.storages import require_bag

RECORD_FILE = "replay.json"  # in the folder of the result bag; rosbag2 does not mind


def drive_of(result: Path) -> Path:
    """The bag that a result came from. Raises ValueError where that is not written beside it."""
    require_bag(result)
    file = result / RECORD_FILE
    if not file.is_file():
        raise ValueError(f"{result} does not say which bag it came from; name it with --ground-truth")
    return Path(json.loads(file.read_text(encoding="utf-8"))["bag"])
