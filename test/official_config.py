"""Our configuration, and our network, of a model that the goldens describe in the official (mmcv) style."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bevformer_ros.model.checkpoint import load_weights, weights_from_official
from bevformer_ros.model.config import (
    BackboneConfig,
    BevGridConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    PerspectiveHeadConfig,
    TemporalConfig,
)
from bevformer_ros.model.network import BEVFormerV2, build_network

OFFICIAL_HEADS = 8
OFFICIAL_POINTS = 4


def model_config(official: dict[str, Any], images: Tensor, cameras: int = 6) -> ModelConfig:
    """images: (..., height, width) of the case, already as the network takes them."""
    head = official["pts_bbox_head"]
    transformer, coder = head["transformer"], head["bbox_coder"]
    backbone, neck = official["img_backbone"], official["img_neck"]
    assert transformer["encoder"]["pc_range"] == coder["pc_range"]
    assert backbone["style"] == "caffe" and tuple(backbone["out_indices"]) == (1, 2, 3)
    assert neck["add_extra_convs"] == "on_output" and neck["relu_before_extra_convs"]
    groups = head.get("group_detr", 1)
    height, width = images.shape[-2:]
    return ModelConfig(
        name="golden",
        image=ImageConfig((width, height), (0, 0, width, height), height, pad_divisor=1),
        cameras=tuple(f"camera_{index}" for index in range(cameras)),
        channels=transformer["embed_dims"],
        backbone=BackboneConfig(backbone["depth"], backbone.get("base_channels", 64)),
        pyramid_levels=neck["num_outs"],
        bev=BevGridConfig(head["bev_h"], head["bev_w"], tuple(map(float, coder["pc_range"]))),
        encoder=_encoder(transformer["encoder"], official["num_levels"]),
        temporal=TemporalConfig(
            frames=tuple(official["frames"]),
            channels=transformer.get("inter_channels"),
            blocks=transformer.get("num_fusion", 3),
        ),
        decoder=_decoder(transformer["decoder"], head["num_query"], groups),
        perspective=perspective_config(official["fcos3d_bbox_head"]) if official.get("fcos3d_bbox_head") else None,
        max_detections=coder["max_num"],
    )


def _encoder(official: dict[str, Any], image_levels: int) -> EncoderConfig:
    layer = official["transformerlayers"]
    grid, cross = layer["attn_cfgs"][0], layer["attn_cfgs"][1]["deformable_attention"]
    assert cross["num_levels"] == image_levels
    heads = grid.get("num_heads", OFFICIAL_HEADS)
    assert cross.get("num_heads", OFFICIAL_HEADS) == heads
    return EncoderConfig(
        layers=official["num_layers"],
        heads=heads,
        hidden_channels=_hidden_channels(layer),
        image_levels=image_levels,
        pillar_points=official["num_points_in_pillar"],
        image_points=cross.get("num_points", 8),
        grid_points=grid.get("num_points", OFFICIAL_POINTS),
    )


def _decoder(official: dict[str, Any], queries: int, groups: int) -> DecoderConfig:
    layer = official["transformerlayers"]
    own, cross = layer["attn_cfgs"]
    assert own["num_heads"] == cross.get("num_heads", OFFICIAL_HEADS)
    return DecoderConfig(
        layers=official["num_layers"],
        heads=own["num_heads"],
        hidden_channels=_hidden_channels(layer),
        points=cross.get("num_points", OFFICIAL_POINTS),
        queries=queries,
        groups=groups,
    )


def _hidden_channels(layer: dict[str, Any]) -> int:
    return layer.get("ffn_cfgs", layer)["feedforward_channels"]


def perspective_config(official: dict[str, Any]) -> PerspectiveHeadConfig:
    flat, solid, loss = official["fcos2d_cfg"], official["fcos3d_cfg"], official["fcos3d_loss_cfg"]
    assert flat["num_cls_convs"] == flat["num_box_convs"] == solid["num_convs"]
    assert not solid["use_per_level_predictors"] and not solid["class_agnostic"] and not loss["predict_distance"]
    assert flat["use_scale"] and solid["use_scale"] and official["feature_locations_offset"] == "none"
    assert loss["predict_allocentric_rot"] and loss["scale_depth_by_focal_lengths"]
    return PerspectiveHeadConfig(
        strides=tuple(official["strides"]),
        tower_depth=solid["num_convs"],
        depth_means=tuple(solid["mean_depth_per_level"]),
        depth_deviations=tuple(solid["std_depth_per_level"]),
        depth_range=(loss["min_depth"], loss["max_depth"]),
        reference_focal_length=loss["scale_depth_by_focal_lengths_factor"],
        canonical_sizes=tuple((length, width, height) for width, length, height in loss["canon_box_sizes"]),
    )


def golden_network(tensors: dict[str, Tensor], description: dict[str, Any]) -> BEVFormerV2:
    """The network that a golden case describes, with the official weights of the case, in eval mode."""
    official = {
        name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")
    }
    cameras = len(official["pts_bbox_head.transformer.cams_embeds"])
    network = build_network(model_config(description["model_cfg"], tensors["inputs.img"], cameras))
    load_weights(network, weights_from_official(official))
    return network.eval()
