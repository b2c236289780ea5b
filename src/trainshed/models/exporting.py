"""A trained model as a directory that other programs load: adapters merged, in the number type asked for.

What is merged is compared with what was trained before anything is written. Left out: other formats than the
Hugging Face layout, whole retrieval systems.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainshed.errors import ModelError, require_extra
from trainshed.files import atomic_directory, read_json
from trainshed.models.causal_lm import LOAD_ERRORS, load_causal_lm, load_tokenizer, save_causal_lm
from trainshed.models.model_files import check_model_directory
from trainshed.models.precision import resolve_dtype
from trainshed.models.quiet import no_library_bars

_ADAPTERS = "adapter_config.json"
_ROWS, _TOKENS = 8, 16
# Merging adds products in another order; more than this, against the spread of the outputs, is an error.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    path
        The directory.
    merged
        Whether adapters were merged.
    deviation
        Largest difference of an output from that of the trained model, over the outputs' standard deviation;
        None where weights were copied.
    """

    path: Path
    merged: bool
    deviation: float | None


def export_model(
    source: Path, destination: Path, *, dtype: str | None = None, merge: bool = True
) -> Exported:
    """Write a trained model for other programs.

    Parameters
    ----------
    source
        What a training left: a model, or adapters with the path of their base.
    destination
        A directory, which is replaced at once when all is written.
    dtype
        Number type of the weights; the trained model's own when None.
    merge
        Merge adapters into their base; else they are copied.

    Raises
    ------
    ModelError
        When the source holds no model, is damaged, or the merged model differs from the trained one.
    """
    adapters = (source / _ADAPTERS).is_file()
    if not adapters and not (source / "config.json").is_file():
        raise ModelError(
            "the directory holds no model", where=str(source), fix="the outputs of a training, or its run"
        )
    if dtype is None and not (adapters and merge):
        check_model_directory(source, "adapter_model" if adapters else "model")
        with atomic_directory(destination) as partial:
            shutil.copytree(source, partial, dirs_exist_ok=True, symlinks=False)
        return Exported(destination, merged=False, deviation=None)
    if adapters and not merge:
        raise ModelError(
            "adapters are written in their own number type",
            where="--dtype",
            fix="leave out --dtype, or merge the adapters",
        )
    model, tokenizer = _load(source)
    before = _outputs(model)
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    wanted = resolve_dtype(dtype) if dtype else merged.dtype
    merged = merged.to(wanted).eval()
    deviation = float((_outputs(merged) - before).abs().max() / before.std().clamp_min(1e-6))
    if not deviation <= _TOLERANCE.get(wanted, _TOLERANCE[torch.float32]):
        raise ModelError(
            f"the exported model differs from the trained one by {deviation:.2g} standard deviations",
            where=str(source),
            fix="another --dtype, or --keep-adapters",
        )
    with atomic_directory(destination) as partial:
        save_causal_lm(merged, tokenizer, partial)
    return Exported(destination, merged=adapters, deviation=deviation)


def _load(source: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a language model, or a model with a head, with its adapters."""
    heads: dict[str, str] = {"SEQ_CLS": "AutoPeftModelForSequenceClassification"}
    if (source / _ADAPTERS).is_file():
        kind = heads.get(str(read_json(source / _ADAPTERS).get("task_type")))
        if kind is None:
            return load_causal_lm(str(source))
        require_extra("peft", "peft")
        import peft

        check_model_directory(source, "adapter_model")
        return _guarded(source, lambda: getattr(peft, kind).from_pretrained(str(source), num_labels=1))
    name = (read_json(source / "config.json").get("architectures") or [""])[0]
    if name.endswith("ForCausalLM") or not name:
        return load_causal_lm(str(source))
    import transformers

    check_model_directory(source)
    return _guarded(source, lambda: getattr(transformers, name).from_pretrained(str(source)))


def _guarded(source: Path, load: Callable[[], Any]) -> tuple[Any, PreTrainedTokenizerBase]:
    try:
        with no_library_bars():
            model = load()
    except (*LOAD_ERRORS, AttributeError) as error:
        raise ModelError(
            f"the model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(source),
            fix="train it again",
        ) from error
    return model.eval(), load_tokenizer(str(source))


def _outputs(model: Any) -> Tensor:
    """Return the model's outputs for some tokens of its vocabulary, flat, in float32."""
    size = int(model.get_input_embeddings().num_embeddings)
    ids = torch.arange(_ROWS * _TOKENS, device=model.device) * 7919 % size
    ids = ids.view(_ROWS, _TOKENS)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return (found.logits if hasattr(found, "logits") else found[0]).float().cpu().flatten()
