"""timm, in an environment for the CPU too."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch


def import_timm() -> ModuleType:
    """timm, or the calling module is skipped.

    torchvision's wheels are built for CUDA. Beside a torch for the CPU their operators do not load, and the import
    fails over the shapes of two of them. timm uses neither, so here it is enough to declare them.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pytest.skip("needs timm and torchvision, which `make env` installs", allow_module_level=True)
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("timm", reason="needs timm, which `make env` installs")
