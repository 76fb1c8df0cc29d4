"""What a camera's geometry tells about depth, as a correction to the perspective head's own estimate.

Two rules of thumb for every location: an object stands on the ground where its 2D box ends, and a class has a usual
height. What they are worth, class by class, the features decide; with the zeros that the last layer starts from the
head's own depth stays as it is.

Shapes: M images, K classes, C channels, h x w one level's feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bevformer_ros.model.config import PerspectiveHeadConfig

_CAMERA_HEIGHT = 1.5  # metres above the ground, as on most cars; the weights of the cue adapt it
_FARTHEST = 80.0  # metres
_CUES = 10


class DepthCues(nn.Module):
    """Per class two weights, of the depth by ground contact and by apparent height, and an offset."""

    canonical_heights: Tensor

    def __init__(self, config: PerspectiveHeadConfig, channels: int) -> None:
        super().__init__()
        self.reference_focal_length = config.reference_focal_length
        self.classes = len(config.canonical_sizes)
        self.hidden = nn.Conv2d(channels + _CUES, channels, 1)
        self.output = nn.Conv2d(channels, 3 * self.classes, 1)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        heights = torch.tensor([size[2] for size in config.canonical_sizes])
        self.register_buffer("canonical_heights", heights.view(1, -1, 1, 1), persistent=False)

    def forward(self, features: Tensor, sides: Tensor, depths: Tensor, intrinsics: Tensor, stride: int) -> Tensor:
        """Depths (M, K, h, w), corrected; depths and sides (M, 4, h, w) as in PerspectiveLevel, features (M, C, h, w),
        intrinsics (M, 3, 3) of the network input."""
        fx, fy, cx, cy = (
            intrinsics[:, row, column].float().view(-1, 1, 1) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))
        )
        height, width = sides.shape[-2:]
        columns = torch.arange(width, device=sides.device).view(1, 1, -1) * stride
        rows = torch.arange(height, device=sides.device).view(1, -1, 1) * stride
        left, top, right, bottom = sides.float().unbind(1)  # each (M, h, w)
        low = ((rows + bottom - cy) / fy).clamp(min=_CAMERA_HEIGHT / _FARTHEST)  # slope of the ray to the ground
        tall, wide = ((top + bottom) / fy).clamp(min=1e-3), ((left + right) / fx).clamp(min=1e-3)
        inverse_focal_length = (fx**-2 + fy**-2).sqrt()  # hypot, which ONNX lacks
        zoom = inverse_focal_length * self.reference_focal_length  # from metres to the head's depths
        cues = torch.stack(
            [
                ((columns - cx) / fx).expand_as(low),
                4 * ((rows - cy) / fy).expand_as(low),
                (columns - left - cx) / fx,
                (columns + right - cx) / fx,
                4 * (rows - top - cy) / fy,
                4 * (rows + bottom - cy) / fy,
                tall.log(),
                wide.log(),
                low.log(),
                zoom.expand_as(low),
            ],
            dim=-1,
        ).permute(0, 3, 1, 2)  # channels last, as the features are
        hidden = self.hidden(torch.cat([features, cues.to(features.dtype)], dim=1)).relu()
        by_ground, by_height, offset = self.output(hidden).float().chunk(3, dim=1)
        ground = (zoom * _CAMERA_HEIGHT / low).unsqueeze(1)
        apparent = zoom.unsqueeze(1) * (self.canonical_heights / tall.unsqueeze(1)).clamp(max=_FARTHEST)
        return depths + by_ground * (ground - depths) + by_height * (apparent - depths) + offset
