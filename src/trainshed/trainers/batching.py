"""Which examples stand in which batch: a function of the seed and the epoch alone.

So a resumed training sees the batches it would have seen. Left out: making tensors of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from trainshed.models.seeds import derive_seed

#: batches whose examples are sorted by length together; more saves padding, fewer mixes better
_POOL_BATCHES = 32


class EpochBatches:
    """Batches of indices for each epoch, in a new order each time.

    Parameters
    ----------
    count
        How many examples there are.
    batch_size
        Examples of a batch; the last may have fewer.
    seed
        Decides the order.
    lengths
        Of the examples: batches then hold similar ones. None mixes freely.
    shuffle
        False keeps the given order.
    drop_last
        Leave out a last batch with fewer examples.
    rank, world
        Which of how many processes these batches are for; all get equally many, so that the first batches
        may come twice.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.lengths, self.shuffle, self.drop_last = lengths, shuffle, drop_last
        self.rank, self.world = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is for."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the batches of this process in an epoch."""
        return -(-self._all() // self.world)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this process in the epoch that was set."""
        batches = self._batches()
        if not batches:
            return
        for number in range(len(self)):
            yield batches[(number * self.world + self.rank) % len(batches)]

    def _all(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def _batches(self) -> list[list[int]]:
        if not self.shuffle:
            return self._cut(list(range(self.count)))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "batches", str(self.epoch)))
        order = torch.randperm(self.count, generator=generator).tolist()
        if self.lengths is None:
            return self._cut(order)
        lengths, pool = self.lengths, self.batch_size * _POOL_BATCHES
        if self.drop_last:
            order = order[: self._all() * self.batch_size]
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = sorted(part, key=lambda index: lengths[index])
        batches = self._cut(order)
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def _cut(self, order: list[int]) -> list[list[int]]:
        size = self.batch_size
        return [order[number * size : (number + 1) * size] for number in range(self._all())]


class EpochLoader(DataLoader):
    """A data loader that hands the epoch's number on to `EpochBatches`."""

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is for."""
        batches: Any = self.batch_sampler
        batches.set_epoch(epoch)
