"""The exact kernel against sorting every score; the small types must never change an answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainshed.rag.stores import exact
from trainshed.rag.stores import vectors as exact_vectors
from trainshed.rag.stores.exact import exact_search
from trainshed.rag.stores.vectors import VectorMatrix, shrink

PRECISIONS = ("float32", "bfloat16", "int8")


def reference(vectors: torch.Tensor, queries: torch.Tensor, k: int, rows=None):
    """Score everything in float64, round to float32, sort stably."""
    rows = torch.arange(len(vectors)) if rows is None else rows
    scores = (queries.double() @ vectors[rows].double().T).float()
    values, order = scores.sort(dim=1, descending=True, stable=True)
    return rows[order[:, :k]], values[:, :k]


def matrix_of(vectors: torch.Tensor) -> VectorMatrix:
    matrix = VectorMatrix(vectors.shape[1])
    matrix.append(vectors)
    return matrix


@settings(max_examples=120, deadline=None)
@given(
    count=st.integers(1, 400),
    dimension=st.integers(1, 40),
    queries=st.integers(1, 20),
    k=st.integers(1, 30),
    distinct=st.integers(1, 400),
    spread=st.sampled_from([1e-6, 1e-3, 1.0, 100.0]),
    precision=st.sampled_from(PRECISIONS),
    seed=st.integers(0, 1 << 16),
)
def test_equals_sorting_everything(count, dimension, queries, k, distinct, spread, precision, seed):
    """Near-ties of any width, duplicates, any scale: the small types must not change the answer."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(1, dimension, generator=generator) + spread * torch.randn(
        min(distinct, count), dimension, generator=generator
    )
    vectors = few[torch.randint(0, len(few), (count,), generator=generator)]
    asked = torch.randn(queries, dimension, generator=generator)
    rows = (torch.rand(count, generator=generator) < 0.5).nonzero()[:, 0] if seed % 2 else None
    indices, scores = exact_search(matrix_of(vectors), asked, k, rows=rows, precision=precision)
    wanted_indices, wanted_scores = reference(vectors, asked, k, rows)
    found = wanted_indices.shape[1]
    # the reference multiplies in another order: a last bit of float64 may round to another float32
    assert torch.allclose(scores[:, :found], wanted_scores, rtol=2e-7, atol=1e-12)
    same = indices[:, :found] == wanted_indices
    gaps = (scores[:, :found] - wanted_scores).abs() <= 2e-7 * wanted_scores.abs() + 1e-12
    assert bool((same | gaps).all())
    assert bool((indices[:, found:] == -1).all())
    assert bool(scores[:, found:].isneginf().all())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_small_types_give_the_bits_of_float32(precision):
    generator = torch.Generator().manual_seed(1)
    vectors = torch.nn.functional.normalize(torch.randn(5000, 64, generator=generator), dim=1)
    queries = vectors[:300] + 0.1 * torch.randn(300, 64, generator=generator)
    wanted = exact_search(matrix_of(vectors), queries, 10, precision="float32")
    found = exact_search(matrix_of(vectors), queries, 10, precision=precision)
    one_by_one = [
        exact_search(matrix_of(vectors), query[None], 10, precision=precision) for query in queries[:20]
    ]
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert torch.equal(torch.cat([scores for _, scores in one_by_one]), wanted[1][:20])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_crowd_of_duplicates_stands_in_row_order(precision):
    vectors = torch.ones(3000, 8)
    vectors[1234] = 2.0
    indices, scores = exact_search(matrix_of(vectors), torch.ones(2, 8), 5, precision=precision)
    assert indices.tolist() == [[1234, 0, 1, 2, 3]] * 2
    assert scores.tolist() == [[16.0, 8.0, 8.0, 8.0, 8.0]] * 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_blocks(monkeypatch, precision):
    monkeypatch.setattr(exact, "QUERY_BLOCK", 7)
    monkeypatch.setattr(exact, "BLOCK_SCORES", 1024)
    generator = torch.Generator().manual_seed(2)
    vectors, queries = torch.randn(5003, 16, generator=generator), torch.randn(40, 16, generator=generator)
    rows = torch.arange(0, 5003, 2)
    for chosen in (None, rows):
        found = exact_search(matrix_of(vectors), queries, 6, rows=chosen, precision=precision)
        wanted = reference(vectors, queries, 6, chosen)
        assert torch.equal(found[0], wanted[0])
        assert torch.allclose(found[1], wanted[1], rtol=2e-7)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_bound_covers_the_coarse_scores(precision):
    """The bound that certifies an answer is larger than any error seen, also in the worst direction."""
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(500, 24, generator=generator) * torch.logspace(-3, 3, 500)[:, None]
    matrix = matrix_of(vectors)
    errors = (
        vectors - shrink(vectors, precision)[0].float() * shrink(vectors, precision)[1][:, None]
        if precision != ("float32")
        else vectors
    )
    queries = torch.cat([torch.randn(20, 24, generator=generator), errors[-20:]])
    values, positions, error = exact._coarse(matrix, queries, 500, None, precision)
    true = (queries.double() @ vectors.double().T).gather(1, positions)
    last = (true[:, -1] - values[:, -1]).abs()
    assert bool((last <= error).all())
    if precision == "int8":  # its bound holds for every row
        assert bool(((true - values).abs() <= error[:, None]).all())


def test_float32_products_in_lower_precision_stay_exact():
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(4)
    vectors, queries = torch.randn(3000, 32, generator=generator), torch.randn(5, 32, generator=generator)
    try:
        torch.set_float32_matmul_precision("medium")
        found = exact_search(matrix_of(vectors), queries, 7, precision="float32")
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found[0], reference(vectors, queries, 7)[0])


def test_copies_follow_every_change():
    generator = torch.Generator().manual_seed(5)
    matrix = VectorMatrix(16)
    for step in range(6):
        matrix.append(torch.randn(300, 16, generator=generator))
        if step % 2:
            matrix.write(torch.tensor([5, 100]), 10 * torch.randn(2, 16, generator=generator))
        if step == 4:
            matrix.keep(torch.arange(0, matrix.rows, 3))
        queries = torch.randn(4, 16, generator=generator)
        for precision in PRECISIONS:
            found = exact_search(matrix, queries, 5, precision=precision)
            assert torch.equal(found[0], reference(matrix.view, queries, 5)[0])


def test_growth_is_amortised():
    matrix = VectorMatrix(4)
    buffers = set()
    for _ in range(1000):
        matrix.append(torch.ones(1, 4))
        buffers.add(matrix._buffer.data_ptr())
    assert matrix.rows == 1000
    assert len(matrix._buffer) < 2 * 1000 + 2
    assert len(buffers) <= 12


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(512, 3000),
    k=st.integers(1, 12),
    distinct=st.integers(1, 3000),
    spread=st.sampled_from([1e-6, 1e-3, 1.0]),
    seed=st.integers(0, 1 << 16),
)
def test_a_single_query_equals_sorting_everything(count, k, distinct, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(1, 48, generator=generator) + spread * torch.randn(
        min(distinct, count), 48, generator=generator
    )
    vectors = few[torch.randint(0, len(few), (count,), generator=generator)]
    asked = torch.randn(1, 48, generator=generator)
    matrix = matrix_of(vectors)
    matrix._fastest = {exact_vectors.FEW: "int8"}
    indices, scores = exact_search(matrix, asked, k)
    wanted_indices, wanted_scores = reference(vectors, asked, k)
    assert torch.allclose(scores, wanted_scores, rtol=2e-7, atol=1e-12)
    gaps = (scores - wanted_scores).abs() <= 2e-7 * wanted_scores.abs() + 1e-12
    assert bool(((indices == wanted_indices) | gaps).all())


def test_a_single_query_among_distinct_rows_is_sure_at_once(monkeypatch):
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2000, 384), dim=1)
    asked = torch.nn.functional.normalize(torch.randn(1, 384), dim=1)
    matrix = matrix_of(vectors)
    matrix._fastest = {exact_vectors.FEW: "int8"}
    monkeypatch.setattr(exact, "_search_block", None)  # what an unsure search goes on with
    indices, _ = exact_search(matrix, asked, 8)
    assert torch.equal(indices, reference(vectors, asked, 8)[0])
