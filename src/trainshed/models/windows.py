"""Texts as token ids: cut, or read in overlapping windows. Left out: what is predicted from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainshed.errors import ConfigError, DataError

_TOKENIZE_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once.

    Attributes
    ----------
    ids
        Token ids, special ones included.
    types
        0 for the first text's tokens and 1 for the second's; empty where the model does not ask for them.
    """

    ids: list[int]
    types: list[int]

    def __len__(self) -> int:
        """Return the tokens."""
        return len(self.ids)


def text_windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    overlap: int | None = None,
    max_windows: int = 16,
) -> list[list[Window]]:
    """Return the windows of each text.

    Parameters
    ----------
    tokenizer
        Adds the special tokens of its model.
    texts, pairs
        What is read, and what is read with it: a pair stands whole in every window.
    max_length
        Tokens of a window.
    overlap
        Tokens that a window shares with the one before; None makes one window a text and leaves out the end
        of a longer one (of text and pair, the longer one's).
    max_windows
        Most windows of a text; what comes after is left out.

    Raises
    ------
    DataError
        When a pair leaves no room for the text.
    """
    windows: list[list[Window]] = []
    for start in range(0, len(texts), _TOKENIZE_AT_ONCE):
        part = slice(start, start + _TOKENIZE_AT_ONCE)
        second = None if pairs is None else list(pairs[part])
        if overlap is not None and second is not None:
            _check_room(tokenizer, second, max_length, overlap)
        options: dict[str, Any] = {"truncation": "only_first" if overlap is not None else "longest_first"}
        if overlap is not None:
            options |= {"stride": overlap, "return_overflowing_tokens": True}
        found = encode(tokenizer, list(texts[part]), second, max_length=max_length, **options)
        owners = found.get("overflow_to_sample_mapping", range(len(found["input_ids"])))
        rows: list[list[Window]] = [[] for _ in texts[part]]
        for number, owner in enumerate(owners):
            if len(rows[owner]) < max_windows:
                rows[owner].append(window(found, number))
        windows += rows
    return windows


def encode(
    tokenizer: PreTrainedTokenizerBase, first: Any, second: Any = None, *, max_length: int, **options: Any
) -> Any:
    """Return what a tokenizer makes of texts cut to ``max_length`` tokens.

    Raises
    ------
    ConfigError
        When overlapping windows are asked of a tokenizer that cannot make them.
    """
    if options.get("return_overflowing_tokens") and not tokenizer.is_fast:
        raise ConfigError(
            f"overlapping chunks need a tokenizer of the tokenizers library, not {type(tokenizer).__name__}",
            where="model.tokenizer_name_or_path",
            fix="a model that comes with tokenizer.json",
        )
    return tokenizer(first, second, max_length=max_length, padding=False, verbose=False, **options)


def window(encoded: Any, number: int) -> Window:
    """Return one window of what `encode` returned."""
    types = encoded.get("token_type_ids")
    return Window(encoded["input_ids"][number], [] if types is None else types[number])


def collate_windows(windows: Sequence[Window], pad_id: int) -> dict[str, Tensor]:
    """Return what a model takes: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``.

    Parameters
    ----------
    windows
        At least one.
    pad_id
        Fills rows up on the right, to the longest one.
    """
    length = max(map(len, windows))
    batch = {
        "input_ids": torch.full((len(windows), length), pad_id),
        "attention_mask": torch.zeros(len(windows), length, dtype=torch.long),
    }
    if windows[0].types:
        batch["token_type_ids"] = torch.zeros(len(windows), length, dtype=torch.long)
    for row, each in enumerate(windows):
        batch["input_ids"][row, : len(each)] = torch.tensor(each.ids)
        batch["attention_mask"][row, : len(each)] = 1
        if each.types:
            batch["token_type_ids"][row, : len(each)] = torch.tensor(each.types)
    return batch


#: what of a batch goes to the model
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _check_room(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[str], max_length: int, overlap: int
) -> None:
    special = tokenizer.num_special_tokens_to_add(pair=True)
    for pair, ids in zip(
        pairs, tokenizer(list(pairs), add_special_tokens=False, verbose=False)["input_ids"], strict=True
    ):
        if max_length - special - len(ids) <= overlap:
            raise DataError(
                f"the second text has {len(ids)} tokens, which leaves no room for the first one in chunks "
                f"of {max_length} that overlap by {overlap}",
                where=repr(pair[:60]),
                fix="a greater training.max_length, or the shorter text as training.text_pair_column",
            )
