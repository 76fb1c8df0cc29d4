"""Sigmoid focal loss, shared by both heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bevformer_ros.training.config import FocalConfig


def focal_loss(logits: Tensor, targets: Tensor, config: FocalConfig) -> Tensor:
    """Loss of every logit, in the logits' shape; targets: of the same shape, 0 or 1 (Lin et al. 2017), or between for
    a positive of less than full quality (Li et al. 2020)."""
    wrongness = (logits.sigmoid() - targets).abs()
    balance = torch.where(targets > 0, config.alpha, 1 - config.alpha)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return balance * wrongness.pow(config.gamma) * cross_entropy
