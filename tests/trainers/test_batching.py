"""Batches are a function of seed and epoch, and every example comes once."""

from hypothesis import given
from hypothesis import strategies as st

from trainshed.trainers.batching import EpochBatches

COUNTS, SIZES, FLAGS = st.integers(0, 200), st.integers(1, 17), st.booleans()


@given(COUNTS, SIZES, FLAGS, FLAGS, st.integers(0, 3))
def test_each_example_once(count, size, bucketed, shuffle, epoch):
    lengths = [(i * 37) % 101 for i in range(count)] if bucketed else None
    batches = EpochBatches(count, size, lengths=lengths, shuffle=shuffle, seed=epoch)
    batches.set_epoch(epoch)
    seen = list(batches)
    assert sorted(i for batch in seen for i in batch) == list(range(count))
    assert len(seen) == len(batches)
    assert all(len(batch) <= size for batch in seen)
    assert list(batches) == seen


@given(st.integers(1, 100), SIZES, FLAGS, st.integers(1, 4))
def test_processes_share_the_batches(count, size, drop_last, world):
    parts = [EpochBatches(count, size, drop_last=drop_last, rank=r, world=world) for r in range(world)]
    found = [list(part) for part in parts]
    assert len({len(part) for part in found}) == 1
    whole = {tuple(batch) for batch in EpochBatches(count, size, drop_last=drop_last)}
    assert {tuple(batch) for part in found for batch in part} == whole


def test_epochs_and_seeds_differ():
    batches = EpochBatches(50, 8, seed=1)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(EpochBatches(50, 8, seed=2)) != first
    assert next(iter(EpochBatches(50, 8, shuffle=False))) == list(range(8))


def test_bucketing_saves_padding():
    lengths = [(i * 7919) % 500 for i in range(1000)]

    def padded(batches):
        return sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)

    assert padded(EpochBatches(1000, 8, lengths=lengths)) < 0.65 * padded(EpochBatches(1000, 8))


def test_drop_last_keeps_full_batches_only():
    batches = list(EpochBatches(21, 4, lengths=list(range(21)), drop_last=True))
    assert [len(batch) for batch in batches] == [4] * 5
