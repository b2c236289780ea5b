"""Which number type to compute in, and whether this machine is fast at it.

Left out: quantised weights (see `causal_lm`).
"""

import contextlib
import platform
from contextlib import AbstractContextManager

import torch

from trainshed.errors import ConfigError, did_you_mean

#: names that a configuration may use
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX, or Armv8.6 BF16).

    Where it does not, PyTorch emulates bfloat16, which is slower than float32.
    """
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if platform.machine() in ("aarch64", "arm64"):
        return bool(capabilities.get("bf16"))
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that a name stands for; ``auto`` is CUDA, then MPS, then the CPU."""
    if str(device) != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def resolve_dtype(name: str | torch.dtype | None, device: str | torch.device = "cpu") -> torch.dtype:
    """Return the number type that a name stands for on a device.

    Parameters
    ----------
    name
        A name of `DTYPES` (or ``fp32``, ``bf16``, ``fp16``); ``auto`` is bfloat16 where the device computes
        with it in hardware, else float32; None is float32.
    device
        Where it will be computed.

    Raises
    ------
    ConfigError
        When the name is unknown.
    """
    if isinstance(name, torch.dtype):
        return name
    if name is None:
        return torch.float32
    if name == "auto":
        kind = torch.device(device).type
        fast = cpu_has_bf16() if kind == "cpu" else kind == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    known = DTYPES.get(_ALIASES.get(name, name))
    if known is None:
        raise ConfigError(f"unknown number type {name!r}", fix=did_you_mean(name, [*DTYPES, "auto"]))
    return known


def autocast(device: str | torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return a context in which matrix products are computed in ``dtype``; none for float32 or None."""
    if dtype is None or dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)
