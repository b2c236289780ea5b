"""The reward of a trained reward model: one number for a prompt with its completion.

The text is what `reward` trains on: the chat template over all messages, or prompt and completion with the
token that ends a text. Left out: training it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from trainshed.config.rewards import RewardModelOptions
from trainshed.errors import ConfigError, ModelError
from trainshed.models.causal_lm import LOAD_ERRORS, load_tokenizer
from trainshed.models.precision import resolve_device
from trainshed.models.quiet import no_library_bars


class RewardModel:
    """A sequence classifier with one output as a reward function.

    Parameters
    ----------
    options
        How texts are made and batched.
    model
        A directory or hub name, or the model itself.
    tokenizer
        Its tokenizer, where the model is not a name.
    device
        Where a named model is put.

    Raises
    ------
    ConfigError
        When no model is named.
    ModelError
        When it cannot be loaded, or has more than one output.
    """

    def __init__(
        self,
        options: RewardModelOptions | None = None,
        *,
        model: Any = None,
        tokenizer: Any = None,
        device: str = "cpu",
    ) -> None:
        self.options = options or RewardModelOptions()
        if model is None:
            raise ConfigError(
                "no reward model is named", where="training.reward_model", fix="a directory or a hub name"
            )
        if isinstance(model, str | Path):
            model, tokenizer = _load(str(model), device)
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        if model.config.num_labels != 1:
            raise ModelError(
                f"a reward model has one output, this one has {model.config.num_labels}",
                where="training.reward_model",
                fix="a model that `reward` trained",
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
        reads = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length: int | None = self.options.max_length or reads

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        """Judge completions; see `functions.RewardFunction`."""
        ids = [self._ids(prompt, done) for prompt, done in zip(prompts, completions, strict=True)]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        found = [0.0] * len(ids)
        for start in range(0, len(order), self.options.batch_size):
            rows = order[start : start + self.options.batch_size]
            for row, value in zip(rows, self._scores([ids[row] for row in rows]).tolist(), strict=True):
                found[row] = value
        return found

    def _scores(self, rows: Sequence[list[int]]) -> Tensor:
        """Return ``[n]`` scores of padded texts."""
        width, pad = max(len(row) for row in rows), self.tokenizer.pad_token_id
        device = next(self.model.parameters()).device
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.no_grad():
            return self.model(input_ids=ids, attention_mask=mask).logits[:, 0].float()  # type: ignore[no-any-return]

    def _ids(self, prompt: Any, completion: Any) -> list[int]:
        if isinstance(prompt, str):
            text = prompt + completion
            end = self.tokenizer.eos_token
            if self.options.add_eos and end and not text.endswith(end):
                text += end
            ids = self.tokenizer(text)["input_ids"]
        else:
            ids = self.tokenizer.apply_chat_template([*prompt, *completion], tokenize=True, return_dict=False)
        ids = list(ids) or [self.tokenizer.eos_token_id]
        return ids if self.max_length is None else ids[-self.max_length :]


def _load(name: str, device: str) -> tuple[Any, Any]:
    try:
        with no_library_bars():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True, output_loading_info=True
            )
    except LOAD_ERRORS as error:
        raise ModelError(
            f"the reward model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=name,
            fix="a directory that `reward` wrote, or a hub name that this machine can reach",
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"the reward model has no weights for {missing[0]}, so its scores would be random",
            where=name,
            fix="a directory that `reward` wrote",
        )
    return model.to(resolve_device(device)), load_tokenizer(name)
