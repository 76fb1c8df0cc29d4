"""Weights in and out: official mmcv checkpoints under our names, and our own safetensors with the configuration inside.

A checkpoint is data, never code: an official file is read by the restricted unpickler of torch, which builds tensors
and plain containers only and refuses everything else.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bevformer_ros.config import from_dict
from bevformer_ros.error_model import ErrorModel
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.taxonomy import CLASS_NAMES, one_per_class
from bevformer_ros.unfinished import written_whole

LOGGER = logging.getLogger(__name__)

_CONFIG_KEY = "bevformer_ros.model_config"
SCORE_THRESHOLD_KEY = "score_threshold"
ERROR_MODEL_KEY = "error_model"
_SECOND_STAGE = "proposal_queries."

# Official tensors that the network does not use: code_weights are the weights of the box loss, a constant of training.
NOT_IN_THE_NETWORK = frozenset({"pts_bbox_head.code_weights"})

# Official names as patterns and what they are called here, applied one after the other.
OFFICIAL_NAMES = (
    # image backbone and neck
    (r"^img_backbone\.conv1\.", "backbone.stem.conv."),
    (r"^img_backbone\.bn1\.", "backbone.stem.norm."),
    *((rf"^img_backbone\.layer{stage + 1}\.", f"backbone.stages.{stage}.") for stage in range(4)),
    (r"^img_neck\.lateral_convs\.(\d)\.conv\.", r"neck.laterals.\1."),
    (r"^img_neck\.fpn_convs\.([012])\.conv\.", r"neck.outputs.\1."),
    *((rf"^img_neck\.fpn_convs\.{level}\.conv\.", f"neck.extras.{level - 3}.") for level in range(3, 7)),
    # BEV encoder
    (r"^pts_bbox_head\.bev_embedding\.", "bev_encoder.queries."),
    (r"^pts_bbox_head\.positional_encoding\.row_embed\.", "bev_encoder.row_position."),
    (r"^pts_bbox_head\.positional_encoding\.col_embed\.", "bev_encoder.column_position."),
    (r"^pts_bbox_head\.transformer\.level_embeds$", "bev_encoder.level_embedding"),
    (r"^pts_bbox_head\.transformer\.cams_embeds$", "bev_encoder.camera_embedding"),
    (r"^pts_bbox_head\.transformer\.encoder\.layers\.", "bev_encoder.layers."),
    # temporal fusion
    (r"^pts_bbox_head\.transformer\.fusion\.layers\.", "temporal_fusion.blocks."),
    (r"^pts_bbox_head\.transformer\.fusion\.layer_norm\.0\.", "temporal_fusion.projection."),
    (r"^pts_bbox_head\.transformer\.fusion\.layer_norm\.1\.", "temporal_fusion.norm."),
    # object queries and decoder
    (r"^pts_bbox_head\.query_embedding\.", "queries.embedding."),
    (r"^pts_bbox_head\.transformer\.reference_points\.", "queries.reference_points."),
    (r"^pts_bbox_head\.transformer\.decoder\.layers\.", "decoder.layers."),
    (r"^pts_bbox_head\.cls_branches\.", "decoder.class_branches."),
    (r"^pts_bbox_head\.reg_branches\.", "decoder.box_branches."),
    # perspective head
    (r"^fcos3d_bbox_head\.(fcos[23]d_head\.)?", "perspective_head."),
    (r"^perspective_head\.cls_tower\.", "perspective_head.class_tower."),
    (r"^(perspective_head\.\w+_tower\.\d)\.weight$", r"\1.conv.weight"),
    (r"^(perspective_head\.\w+_tower\.\d)\.norm\.", r"\1.norms."),
    (r"^perspective_head\.cls_logits\.", "perspective_head.class_logits."),
    (r"^perspective_head\.attr_logits\.", "perspective_head.attribute."),
    (r"^perspective_head\.box2d_reg\.", "perspective_head.box2d."),
    (r"^perspective_head\.box3d_quat\.0\.", "perspective_head.quaternion."),
    (r"^perspective_head\.box3d_ctr\.0\.", "perspective_head.center_offset."),
    (r"^perspective_head\.box3d_(depth|size)\.0\.", r"perspective_head.\1."),
    (r"^perspective_head\.box3d_conf\.0\.", "perspective_head.confidence."),
    (r"^perspective_head\.scales_box2d_reg\.(\d)\.scale$", r"perspective_head.box2d_scales.\1"),
    (r"^perspective_head\.scales_proj_ctr\.(\d)\.scale$", r"perspective_head.center_offset_scales.\1"),
    (r"^perspective_head\.scales_(depth|size)\.(\d)\.scale$", r"perspective_head.\1_scales.\2"),
    (r"^perspective_head\.scales_conf\.(\d)\.scale$", r"perspective_head.confidence_scales.\1"),
    (r"^perspective_head\.offsets_depth\.(\d)\.bias$", r"perspective_head.depth_offsets.\1"),
    (r"^perspective_head\.mean_depth_per_level$", "perspective_head.depth_means"),
    (r"^perspective_head\.std_depth_per_level$", "perspective_head.depth_deviations"),
    # inside a residual block of backbone or fusion
    (r"^(backbone\.stages|temporal_fusion\.blocks)\.([\d.]+)\.conv(\d)\.", r"\1.\2.conv\3.conv."),
    (r"^(backbone\.stages|temporal_fusion\.blocks)\.([\d.]+)\.bn(\d)\.", r"\1.\2.conv\3.norm."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    # inside a layer of encoder or decoder
    (r"\.attentions\.0\.attn\.in_proj_", ".self_attention.input."),
    (r"\.attentions\.0\.attn\.out_proj\.", ".self_attention.output."),
    (r"\.attentions\.0\.", ".self_attention."),
    (r"\.attentions\.1\.(deformable_attention\.)?", ".cross_attention."),
    (r"\.sampling_offsets\.", ".offsets."),
    (r"\.attention_weights\.", ".weights."),
    (r"\.value_proj\.", ".value."),
    (r"\.output_proj\.", ".output."),
    (r"\.ffns\.0\.layers\.0\.0\.", ".feed_forward.0."),
    (r"\.ffns\.0\.layers\.1\.", ".feed_forward.3."),
)


def name_from_official(name: str) -> str:
    """Our name of a tensor of the official state dict; a name that is none of the official ones stays as it is."""
    for pattern, replacement in OFFICIAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def weights_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under our names, without what the network does not use."""
    return {name_from_official(name): tensor for name, tensor in state.items() if name not in NOT_IN_THE_NETWORK}


class Checkpoint(NamedTuple):
    """weights: under our names. config: inside our own files; None from an official one.

    left_out: official tensors the network does not use. source: "official" or "bevformer_ros". score_thresholds:
    for each class the score from which on boxes are worth showing, error_model: how far boxes may be off, both found in
    validation; None where the file says none.
    """

    weights: dict[str, Tensor]
    config: ModelConfig | None
    left_out: tuple[str, ...]
    source: str
    score_thresholds: tuple[float, ...] | None = None
    error_model: ErrorModel | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read an official .pth as mmcv saves it, or our own .safetensors, onto the CPU.

    Raises ValueError that names the file and what is wrong with it, also for a file that tries to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else _read_official(path)
    for name, tensor in checkpoint.weights.items():
        if tensor.nbytes > path.stat().st_size:
            raise ValueError(f"{path}: {name} has {tensor.nbytes} bytes, more than the file; take other weights")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinity; training diverged or the file is damaged, take other weights"
            )
    return checkpoint


def save_checkpoint(
    path: str | Path,
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    score_thresholds: float | Sequence[float] | None = None,
    error_model: ErrorModel | None = None,
) -> None:
    """Write weights (our names) and configuration as one .safetensors file. score_thresholds: one for all classes, or
    as in Checkpoint. Raises ValueError for what the file would be refused for."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: our checkpoints are safetensors, name it *.safetensors")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    metadata = {_CONFIG_KEY: json.dumps(asdict(config))}
    if score_thresholds is not None:
        metadata[SCORE_THRESHOLD_KEY] = json.dumps(score_thresholds)
        _score_thresholds(path, metadata)
    if error_model is not None:
        metadata[ERROR_MODEL_KEY] = json.dumps(asdict(error_model))
    with written_whole(path) as partial:
        partial.touch()
        usual_mode = partial.stat().st_mode
        try:
            save_file(tensors, partial, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{partial} cannot be written: {error}") from error
        partial.chmod(usual_mode)  # safetensors lets nobody else read it


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], partial: bool = False) -> list[str]:
    """Put weights (our names) into a network; returns what did not fit, which is empty unless partial.

    Strict unless partial: ValueError names every missing, unexpected and misshaped tensor. partial loads what has
    the same name and shape and leaves the rest as it was. A two-stage network also takes weights without any second
    stage, as all released ones are, with a warning: its proposal queries stay as they were.
    """
    expected = network.state_dict()
    if not any(name.startswith(_SECOND_STAGE) for name in weights):
        second_stage = [name for name in expected if name.startswith(_SECOND_STAGE)]
        if second_stage:
            LOGGER.warning(
                "these weights were trained without proposals: the proposal queries stay UNTRAINED and the decoder has "
                "never seen any, so expect worse boxes than with two_stage: false"
            )
        expected = {name: tensor for name, tensor in expected.items() if name not in second_stage}
    misshaped = {name for name, tensor in weights.items() if name in expected and tensor.shape != expected[name].shape}
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"misshaped {name}: {tuple(weights[name].shape)}, the model has {tuple(expected[name].shape)}"
        for name in sorted(misshaped)
    ]
    if problems and not partial:
        raise ValueError(
            f"{len(problems)} tensors do not fit the model; is it the right model configuration?\n  "
            + "\n  ".join(problems)
        )
    fitting = {name: tensor for name, tensor in weights.items() if name in expected and name not in misshaped}
    network.load_state_dict(fitting, strict=False)
    return problems


def _read_official(path: Path) -> Checkpoint:
    content = _unpickle_safely(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path}: not a checkpoint as mmcv saves it, expected a dict with tensors under 'state_dict'")
    left_out = tuple(name for name in state if name in NOT_IN_THE_NETWORK)
    return Checkpoint(weights_from_official(state), None, left_out, "official")


def _require_uncompressed(path: Path) -> None:
    """torch never compresses, and what is compressed may unfold to more than memory holds."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unfolded = sum(entry.file_size for entry in archive.infolist())
    if unfolded > path.stat().st_size:
        raise ValueError(
            f"its records unfold to {unfolded} bytes, more than the file has; torch.save does not compress"
        )


def _unpickle_safely(path: Path) -> Any:
    # Beside the weights mmcv stores what its hooks left behind, among it numpy numbers: harmless, so admitted.
    scalar: Any = np.float64(0).__reduce__()[0]
    numpy_numbers: list[Any] = [
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # before and since numpy 2
    ]
    try:
        _require_uncompressed(path)
        with torch.serialization.safe_globals(numpy_numbers):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused, the file holds more than tensors and plain data and could run code when opened "
            f"({_reason(error)}). Get it from a source you trust, or convert it to safetensors there."
        ) from error
    except Exception as error:  # whatever a reader of damaged bytes comes upon
        raise ValueError(f"{path}: not a readable PyTorch checkpoint: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What the unpickler refused, or else the first line of its complaint."""
    refused = re.search(r"unsupported \w+ [\w.]+", str(error), re.IGNORECASE)
    first_line = next(iter(str(error).strip().splitlines()), "")
    return refused[0] if refused else f"{type(error).__name__}: {first_line}"


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
    if _CONFIG_KEY not in metadata:
        raise ValueError(
            f"{path}: has no model configuration inside; make it with `bevformer-ros convert` or save_checkpoint"
        )
    try:
        config = from_dict(ModelConfig, json.loads(metadata[_CONFIG_KEY]))
        errors = from_dict(ErrorModel, json.loads(metadata[ERROR_MODEL_KEY])) if ERROR_MODEL_KEY in metadata else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(weights, config, (), "bevformer_ros", _score_thresholds(path, metadata), errors)


def _score_thresholds(path: Path, metadata: Mapping[str, str]) -> tuple[float, ...] | None:
    text = metadata.get(SCORE_THRESHOLD_KEY)
    if text is None:
        return None
    try:
        thresholds = one_per_class(json.loads(text))
    except (ValueError, RecursionError):
        thresholds = ()
    if not thresholds or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(
            f"{path}: {SCORE_THRESHOLD_KEY} in its metadata is {text!r}, expected a number from 0 to 1 or a list "
            f"with one for each class: {', '.join(CLASS_NAMES)}"
        )
    return thresholds
