"""Sigmoid focal loss, shared by both heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bevformer_ros.training.config import FocalConfig


def focal_loss(logits: Tensor, targets: Tensor, config: FocalConfig) -> Tensor:
    """Loss of every logit, in the logits' shape; targets: 0 or 1, of the same shape (Lin et al. 2017)."""
    probabilities = logits.sigmoid()
    wrongness = probabilities + targets - 2 * probabilities * targets  # 1 - p of a positive, p of a negative
    balance = config.alpha * targets + (1 - config.alpha) * (1 - targets)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return balance * wrongness.pow(config.gamma) * cross_entropy
