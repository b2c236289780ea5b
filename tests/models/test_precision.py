"""Names of number types and devices."""

import pytest
import torch

from trainshed.errors import ConfigError
from trainshed.models.precision import autocast, cpu_has_bf16, resolve_device, resolve_dtype


def test_names():
    assert resolve_dtype(None) == resolve_dtype("float32") == resolve_dtype("fp32") == torch.float32
    assert resolve_dtype("bf16") == resolve_dtype(torch.bfloat16) == torch.bfloat16
    assert resolve_dtype("auto", "cpu") == (torch.bfloat16 if cpu_has_bf16() else torch.float32)
    assert resolve_dtype("auto", "mps") == torch.float32


def test_unknown_name_says_the_nearest():
    with pytest.raises(ConfigError, match="bfloat16"):
        resolve_dtype("bfloat61")


def test_device():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}


def test_autocast_only_where_asked():
    weight = torch.ones(2, 2)
    with autocast("cpu", torch.bfloat16):
        assert (weight @ weight).dtype == torch.bfloat16
    for dtype in (None, torch.float32):
        with autocast("cpu", dtype):
            assert (weight @ weight).dtype == torch.float32
