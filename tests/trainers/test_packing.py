"""Rows of tokens: every target once, nothing too long."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainshed.trainers.packing import collate_rows, pack, pair_row, text_rows

TOKENS = st.lists(st.integers(2, 99), max_size=60)
SIZES = st.integers(2, 16)


@given(TOKENS, SIZES)
def test_every_token_but_the_first_is_a_target_once(ids, size):
    rows = text_rows(ids, size)
    targets = [t for row in rows for t, w in zip(row.ids, row.weights, strict=True) if w]
    assert targets == ids[1:]
    assert all(2 <= len(row) <= size for row in rows)


@given(st.lists(TOKENS, max_size=12), SIZES)
def test_packing_keeps_rows_whole(texts, size):
    rows = [row for ids in texts for row in text_rows(ids, size)]
    packed = pack(rows, size)
    pieces = Counter()
    for block in packed:
        assert len(block) <= size
        for start, end in zip(block.starts, [*block.starts[1:], len(block)], strict=True):
            pieces[block.ids[start:end]] += 1
            assert block.weights[start] == 0
    assert pieces == Counter(row.ids for row in rows)
    # best fit never leaves two blocks that would fit into one
    assert sum(len(block) <= size // 2 for block in packed) <= 1


@given(st.lists(st.integers(2, 9), max_size=30), st.lists(st.integers(10, 99), min_size=1, max_size=7))
def test_a_pair_keeps_its_completion(prompt, completion):
    row = pair_row(prompt, completion, 8, 0.25)
    assert row.ids[-len(completion) :] == tuple(completion)
    assert len(row) == min(8, len(prompt) + len(completion))
    assert row.weights[0] == 0
    kept = len(row) - len(completion)
    assert row.weights[1:kept] == (0.25,) * max(0, kept - 1)
    if kept:
        assert row.ids[:kept] == tuple(prompt[-kept:])
        assert row.weights[kept:] == (1.0,) * len(completion)


def test_collated():
    rows = pack([pair_row([5, 6], [7], 8, 0.5), pair_row([8], [9], 8, 0.5)], 8)
    batch = collate_rows([*rows, pair_row([3] * 6, [4], 8, 1.0)], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0, 0], [3, 3, 3, 3, 3, 3, 4]]
    assert batch["weights"].tolist()[0] == [0, 0.5, 1, 0, 1, 0, 0]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]
    assert "position_ids" not in collate_rows([pair_row([3], [4], 8, 1.0)], 0)
