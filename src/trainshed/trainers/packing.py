"""Texts as rows of tokens: cut where they are too long, put together where they are short.

Left out: reading texts (see `data`) and the loss.
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row.

    Parameters
    ----------
    ids
        Tokens.
    weights
        Of each token as a target; 0 for the first of a text, which nothing predicts.
    starts
        Where in the row a text begins.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    starts: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.ids)


def text_rows(ids: Sequence[int], block_size: int, overlap: int = 1) -> list[TokenRow]:
    """Return a text as rows of at most ``block_size`` tokens, each token but the first a target once.

    Parameters
    ----------
    ids
        Tokens of the text.
    block_size
        Most tokens of a row, more than ``overlap``.
    overlap
        Last tokens of a row that the next one begins with, to be read and not to be learnt again. At least 1,
        so that no target is lost: nothing predicts a row's first token.
    """
    rows, start, repeated = [], 0, 1
    while start + repeated < len(ids):
        part = tuple(ids[start : start + block_size])
        rows.append(TokenRow(part, (0.0,) * repeated + (1.0,) * (len(part) - repeated)))
        start, repeated = start + len(part) - overlap, overlap
    return rows


def pair_row(
    prompt: Sequence[int], completion: Sequence[int], block_size: int, prompt_weight: float
) -> TokenRow:
    """Return a prompt and its completion as one row; the start of a prompt that is too long is cut.

    Parameters
    ----------
    prompt, completion
        Tokens; the completion has fewer than ``block_size``.
    block_size
        Most tokens of the row.
    prompt_weight
        Weight of a prompt's token as a target; a completion's is 1.
    """
    kept = list(prompt)[max(0, len(prompt) + len(completion) - block_size) :]
    weights = [prompt_weight] * len(kept) + [1.0] * len(completion)
    weights[0] = 0.0
    return TokenRow((*kept, *completion), tuple(weights))


def pack(rows: Iterable[TokenRow], block_size: int) -> list[TokenRow]:
    """Put rows together so that few blocks are needed: best fit, longest first.

    Parameters
    ----------
    rows
        None longer than ``block_size``.
    block_size
        Most tokens of a packed row.
    """
    waiting = sorted(enumerate(rows), key=lambda pair: (-len(pair[1]), pair[0]))
    blocks: list[list[TokenRow]] = []
    rooms: list[tuple[int, int]] = []  # (room left, block), sorted
    for _, row in waiting:
        place = bisect.bisect_left(rooms, (len(row), -1))
        if place == len(rooms):
            blocks.append([])
            room, block = block_size, len(blocks) - 1
        else:
            room, block = rooms.pop(place)
        blocks[block].append(row)
        bisect.insort(rooms, (room - len(row), block))
    return [_joined(block) for block in blocks]


def _joined(rows: Sequence[TokenRow]) -> TokenRow:
    ids: list[int] = []
    weights: list[float] = []
    starts: list[int] = []
    for row in rows:
        starts += [len(ids) + start for start in row.starts]
        ids += row.ids
        weights += row.weights
    return TokenRow(tuple(ids), tuple(weights), tuple(starts))


def collate_rows(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``weights`` ``[n, t]`` padded on the right, and ``position_ids`` where packed.

    Positions start again at 0 with each text of a row, and go on through the padding.
    """
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    weights = torch.zeros(len(rows), longest)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row.ids)
        weights[place, : len(row)] = torch.tensor(row.weights)
    batch = {"input_ids": ids, "weights": weights}
    if any(len(row.starts) > 1 for row in rows):
        positions = torch.arange(longest).repeat(len(rows), 1)
        for place, row in enumerate(rows):
            for start in row.starts[1:]:
                positions[place, start:] = torch.arange(longest - start)
        batch["position_ids"] = positions
    return batch
