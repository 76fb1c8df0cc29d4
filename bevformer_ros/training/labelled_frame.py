"""What a data set gives to training: surround frames with the truth about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.types import Detections3D, SurroundFrame


@dataclass(frozen=True)
class LabelledFrame:
    """A frame with its n objects, as seen by N cameras.

    truth: boxes in the BEV frame at the frame's stamp, velocity zero where unknown. velocity_known: (n,).
    visible: (n, N) whether a camera shows the object; the perspective head learns no others.
    bev_scale: how much larger than it is the BEV map, its history and the decoder see the world; to images and
    perspective head, whose depths the pictures tell, it stays as it is.
    """

    frame: SurroundFrame
    truth: Detections3D
    velocity_known: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    bev_scale: float = 1.0

    def __post_init__(self) -> None:
        count, cameras = len(self.truth), len(self.frame.cameras)
        if self.velocity_known.shape != (count,) or self.visible.shape != (count, cameras):
            raise ValueError(
                f"velocity_known and visible must have shapes ({count},) and ({count}, {cameras}) for the truth, "
                f"got {self.velocity_known.shape} and {self.visible.shape}"
            )


class DriveDataset(Protocol):
    """Drives, each a sequence of frames in order of time at the spacing of the model's history."""

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of every drive."""

    def frames(self, drive: int, first: int, count: int) -> list[LabelledFrame]:
        """Successive frames of a drive, from the index `first` on."""
