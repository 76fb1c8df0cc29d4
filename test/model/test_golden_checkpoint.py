"""Official checkpoints: every key of the released models, and a file as mmcv writes it (golden case 6)."""

from __future__ import annotations

import json
from pathlib import Path

import golden_cases
import pytest
import torch
from golden_detections import assert_same_detections, official_rows
from official_config import model_config
from support import REPOSITORY

from bevformer_ros.config import load_yaml
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.checkpoint import NOT_IN_THE_NETWORK, load_weights, name_from_official, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network

MODELS = REPOSITORY / "config" / "models"


@pytest.mark.parametrize("keys", golden_cases.files("case6_state_dict_keys.json"))
@pytest.mark.parametrize(
    "name", ["bevformerv2_r50_t1_base", "bevformerv2_r50_t1", "bevformerv2_r50_t2", "bevformerv2_r50_t8"]
)
def test_official_keys_map_one_to_one(keys: Path, name: str) -> None:
    official = json.loads(keys.read_text(encoding="utf-8"))["configs"][name.replace("_", "-") + "-24ep"]
    with torch.device("meta"):
        ours = build_network(load_yaml(ModelConfig, MODELS / f"{name}.yaml"))
    theirs = {key: value for key, value in official["keys"].items() if key not in NOT_IN_THE_NETWORK}
    renamed = {name_from_official(key): (tuple(shape), dtype) for key, (shape, dtype) in theirs.items()}
    assert len(renamed) == len(theirs) == official["n_keys"] - len(NOT_IN_THE_NETWORK)
    expected = {
        key: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in ours.state_dict().items()
    }
    assert renamed == expected


@pytest.mark.parametrize("path", golden_cases.variants("case6_mmcv_checkpoint"))
def test_mmcv_checkpoint(path: Path) -> None:
    tensors, description = golden_cases.load(path)
    checkpoint = read_checkpoint(path.with_name(description["checkpoint_file"]))
    assert checkpoint.source == "official"
    assert set(checkpoint.left_out) == NOT_IN_THE_NETWORK
    for name, tensor in golden_cases.part(tensors, "weights.").items():
        if name not in NOT_IN_THE_NETWORK:
            assert torch.equal(checkpoint.weights[name_from_official(name)], tensor), name

    network = build_network(model_config(description["model_cfg"], tensors["inputs.img"])).eval()
    assert load_weights(network, checkpoint.weights) == []
    with torch.no_grad():
        image_from_bev = tensors["inputs.lidar2img"].unsqueeze(0)
        bevs = [
            network.encode_bev(network.bev_encoder.flatten(network.image_features(images)), image_from_bev, None)
            for images in tensors["inputs.img"].unbind(1)
        ]
        decoded = network.decode(network.fuse(torch.stack(bevs, dim=1)))
    golden_cases.assert_equal(decoded.class_logits, tensors["outputs.all_cls_scores"], "all_cls_scores")
    golden_cases.assert_equal(decoded.box_codes, tensors["outputs.all_bbox_preds"], "all_bbox_preds")
    best = decode_boxes(decoded.class_logits[-1], decoded.box_codes[-1], network.config.max_detections, 0.0)
    boxes, scores, labels = official_rows(best)
    boxes[:, 2] -= boxes[:, 5] / 2
    expected = tuple(tensors[f"outputs.final.{name}"] for name in ("boxes_3d", "scores_3d", "labels_3d"))
    assert_same_detections((boxes, scores, labels), expected, "final")
