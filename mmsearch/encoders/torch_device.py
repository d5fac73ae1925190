"""Where torch computes, how precisely, and how it says that memory has run out."""

from __future__ import annotations

from typing import Any

from mmsearch.config import Device, Precision
from mmsearch.errors import ConfigError

__all__ = ["bfloat16_is_fast", "chosen_device", "chosen_precision", "is_out_of_memory"]


def chosen_device(device: Device) -> str:
    """cpu or cuda. Raises ``ConfigError`` if cuda is asked for and torch sees none."""
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ConfigError("--device cuda: torch sees no GPU. Install torch for CUDA, or use --device auto")
    return "cpu"


def chosen_precision(precision: Precision, device: str) -> str:
    """fp32, fp16 or bf16. Raises ``ConfigError`` for float16 on a CPU, which computes it in single steps."""
    import torch

    if device == "cuda":
        if precision == "auto":
            return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        return precision
    if precision == "fp16":
        raise ConfigError("--precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    if precision == "auto":
        return "bf16" if bfloat16_is_fast() else "fp32"
    return precision


def bfloat16_is_fast() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 (AMX); those that only convert them gain nothing."""
    import torch

    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 cannot tell
    return bool(known.get("amx_bf16"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised this because a GPU, or the machine, has no memory left."""
    import torch

    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in told
