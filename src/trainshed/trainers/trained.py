"""What `trainshed train` has made, by its target: ``model, tokenizer, device = load_model("mamba")``.

Left out: models from elsewhere (`models`), whole retrieval systems (`rag.system.RAGSystem.load`).
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from trainshed.config.targets import get_target
from trainshed.errors import ConfigError, ModelError
from trainshed.models.causal_lm import LOAD_ERRORS, load_causal_lm, load_tokenizer
from trainshed.models.model_files import check_model_directory
from trainshed.models.precision import resolve_device
from trainshed.models.quiet import no_library_bars
from trainshed.plan.publishing import Place
from trainshed.policy.control import Policy
from trainshed.rag.retriever import Retriever

#: under which of a target's names its model is looked for, the first that it has
_MODELS = ("best_model", "final_model", "encoder", "rlhf_final_model")
_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def load_model(
    name: str, device: str = "auto", checkpoint_path: str | Path | None = None, *, root: str | Path = "."
) -> tuple[Any, Any, torch.device]:
    """Load what a target of `trainshed train` has left.

    Parameters
    ----------
    name
        The target, such as ``mamba``, ``transformer``, ``dpo``; also ``rag_encoder`` and ``rl_trained``.
    device
        Where to put it; ``auto`` takes the best there is.
    checkpoint_path
        A directory to load instead of the target's own.
    root
        The directory that holds ``checkpoints/``.

    Returns
    -------
    tuple
        The model in evaluation mode, its tokenizer, and the device. For ``rag`` the model is a `Retriever`
        and the tokenizer its passage encoder's; for ``rl`` the model is a policy and the tokenizer None.

    Raises
    ------
    ConfigError
        When there is no such target, or it is several models.
    ModelError
        When it has not been trained yet, says what to run; or when it is damaged.
    """
    target = get_target(name)
    if target.parts:
        raise ConfigError(f"{name!r} is several models", fix=f"one of: {', '.join(target.parts)}")
    path = Path(checkpoint_path).expanduser() if checkpoint_path is not None else None
    if path is None:
        place = Place(Path(root).expanduser(), target.place)
        link = next((known for known in _MODELS if known in target.links), "best_model")
        path = place.checkpoints / link
    if not path.is_dir():
        raise ModelError(
            f"{name!r} has not been trained yet",
            where=str(path),
            fix=f"trainshed train --target {target.name}, in the directory that holds checkpoints/",
        )
    where = resolve_device(device)
    if target.name == "rag":
        retriever = Retriever.load(path, device=str(where))
        return retriever, retriever.passage_encoder.tokenizer, where
    if target.name == "rl":
        return Policy.load(path, device=str(where)), None, where
    model, tokenizer = _load(path, where)
    return model, tokenizer, where


def _load(path: Path, device: torch.device) -> tuple[Any, Any]:
    """Load a model by what its directory says of it."""
    if (path / "adapter_config.json").is_file() or not (path / "config.json").is_file():
        return load_causal_lm(str(path), device=str(device))
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    kind = (config.get("architectures") or [""])[0]
    if not kind.endswith(_HEADS):
        return load_causal_lm(str(path), device=str(device))
    check_model_directory(path)
    try:
        with no_library_bars():
            model = getattr(transformers, kind).from_pretrained(str(path), use_safetensors=True)
    except (*LOAD_ERRORS, AttributeError) as error:
        raise ModelError(
            f"the model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(path),
            fix="train it again, with --force",
        ) from error
    return model.to(device).eval(), load_tokenizer(str(path))
