"""Whether this process can use its GPU any longer: after some errors only a new process can."""

from __future__ import annotations


def why_lost(device: str) -> str:
    """What the driver answers to a tiny computation on a device; empty where the device does it, and for the CPU.

    Ask after an error of any kind: those of a GPU come late, to whoever speaks to it next. Too little memory is no
    loss.
    """
    if not device.startswith("cuda"):
        return ""
    import torch

    try:
        torch.ones(1, device=device).add_(1)
        torch.cuda.current_stream(device).synchronize()
    except torch.OutOfMemoryError:
        return ""
    except RuntimeError as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return ""
