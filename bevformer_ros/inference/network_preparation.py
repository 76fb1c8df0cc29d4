"""The network as it runs on a car: fixed, batch norm folded into the convolutions, in the type and layout that pay.

In bfloat16 or float16 float32 stays where the reference needs it: everything that becomes a position or a box (camera
projection, reference points, sampling positions, attention weights before they weigh, class and box branches of the
decoder), and object queries. All else, that is nearly all the arithmetic, runs in the reduced type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from bevformer_ros.model.bev_encoder import BevEncoder
from bevformer_ros.model.decoder import Decoder
from bevformer_ros.model.layers import BasicBlock, ConvNorm
from bevformer_ros.model.network import BEVFormerV2
from bevformer_ros.model.perspective_head import PerspectiveHead, SharedConv
from bevformer_ros.model.resnet import Bottleneck

LOGGER = logging.getLogger(__name__)

# The one place where the layout of feature maps is chosen: they take over that of the convolutions' weights. Channels
# last is what tensor cores and oneDNN compute in; maps that already lie so need not be reordered in every layer.
_LAYOUT = torch.channels_last

# Holds its own parameters in float32: normalisation statistics, and per-level scales of the perspective head.
_KEEPS_FLOAT32 = (nn.BatchNorm2d, nn.ParameterList)


@torch.no_grad()
def fit_to_cameras(network: BEVFormerV2, model_cameras: Mapping[str, str]) -> BEVFormerV2:
    """The network with a car's cameras in the place of those that it was trained with, changed in place.

    Nothing else of the network knows one camera from another: any number will do, in any order.
    model_cameras: for each camera of the car, in its order, the camera of the network whose embedding it takes.
    Raises ValueError for one that the network lacks.
    """
    known = network.config.cameras
    strangers = [f"{own} takes that of {other}" for own, other in model_cameras.items() if other not in known]
    if strangers:
        raise ValueError(
            f"{network.config.name} has learned embeddings of the cameras {', '.join(known)}, but in the rig "
            f"{' and '.join(strangers)}; name the nearest of them: model_camera: {known[0]}"
        )
    takers = {name: [own for own, other in model_cameras.items() if other == name] for name in known}
    for name, owners in takers.items():
        if len(owners) > 1:
            LOGGER.warning("%s share the embedding of %s, which was learned for one camera", " and ".join(owners), name)
    encoder = network.bev_encoder
    rows = [known.index(name) for name in model_cameras.values()]
    encoder.camera_embedding = nn.Parameter(encoder.camera_embedding[rows])
    network.config = replace(network.config, cameras=tuple(model_cameras))
    return network


@torch.no_grad()
def prepare_for_inference(
    network: BEVFormerV2, device: torch.device, dtype: torch.dtype = torch.float32
) -> BEVFormerV2:
    """The same network, changed in place; its weights have other names from then on and cannot be trained or saved."""
    # What is float32 here is meant: by default torch lets convolutions round it to TF32, with 10 bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    network = network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, ConvNorm | SharedConv | PerspectiveHead | BevEncoder | Decoder):
            module.fold()
    for module in network.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            module.join_biases()
    network.to(device)
    _cast(network, dtype)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=_LAYOUT)  # type: ignore[call-overload]
    return network


def _cast(network: BEVFormerV2, dtype: torch.dtype) -> None:
    reduced = (
        network.backbone,
        network.neck,
        network.perspective_head,
        network.bev_encoder,
        network.temporal_fusion,
        network.decoder.layers,
    )
    for part in reduced:
        for module in part.modules() if part is not None else ():
            if not isinstance(module, _KEEPS_FLOAT32):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
