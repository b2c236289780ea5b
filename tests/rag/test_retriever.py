"""A retriever of one encoder or of two: what it encodes with, what it keeps."""

import pytest
import torch

from trainshed.errors import ConfigError, ModelError
from trainshed.models.encoders import TextEncoder, load_encoder, weights_hash
from trainshed.rag.retriever import Retriever

TEXTS = ["the red cat", "which word has the blue owl ?"]


@pytest.fixture
def single(encoder_directory) -> Retriever:
    return Retriever(load_encoder(str(encoder_directory)), name="tiny")


@pytest.fixture
def dual(encoder_directory, other_encoder_directory) -> Retriever:
    return Retriever.from_names(str(encoder_directory), str(other_encoder_directory))


def test_one_encoder_serves_both(single):
    assert not single.is_dual
    assert (single.dimension, single.normalize) == (32, True)
    assert torch.equal(single.encode_queries(TEXTS), single.encode_passages(TEXTS))
    assert single.encode_queries(TEXTS, dtype=torch.bfloat16).dtype == torch.float32


def test_a_dual_one_starts_with_equal_weights_that_part(single):
    passages = single.passage_encoder
    single.as_dual()
    assert single.is_dual
    assert single.passage_encoder is passages
    assert single.query_hash() == single.passage_hash()
    before, queries = single.passage_hash(), single.query_encoder
    with torch.no_grad():
        next(queries.parameters()).add_(1.0)
    assert single.passage_hash() == before != single.query_hash()
    single.as_dual()
    assert single.query_encoder is queries


def test_two_encoders_each_encode_their_own(dual, encoder_directory, other_encoder_directory):
    assert dual.is_dual
    queries, passages = load_encoder(str(other_encoder_directory)), load_encoder(str(encoder_directory))
    assert torch.equal(dual.encode_queries(TEXTS), queries.encode(TEXTS))
    assert torch.equal(dual.encode_passages(TEXTS), passages.encode(TEXTS))
    assert dual.passage_hash() == weights_hash(passages)
    assert dual.query_hash() == weights_hash(queries)


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_save_and_load(kind, request, tmp_path):
    retriever = request.getfixturevalue(kind)
    retriever.save(tmp_path / "retriever")
    for loaded in (Retriever.load(tmp_path / "retriever"), Retriever.from_names(str(tmp_path / "retriever"))):
        assert (loaded.is_dual, loaded.name) == (retriever.is_dual, retriever.name)
        assert loaded.query_hash() == retriever.query_hash()
        assert loaded.passage_hash() == retriever.passage_hash()
        assert torch.equal(loaded.encode_queries(TEXTS), retriever.encode_queries(TEXTS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["retriever"]


def test_saved_encoders_are_those_of_sentence_transformers(dual, tmp_path):
    from sentence_transformers import SentenceTransformer

    dual.save(tmp_path / "retriever")
    model = SentenceTransformer(str(tmp_path / "retriever" / "query_encoder"), device="cpu")
    found = model.encode(TEXTS, convert_to_tensor=True)
    assert torch.allclose(found, dual.encode_queries(TEXTS), atol=1e-6)


def test_what_is_no_retriever_is_told(tmp_path, single):
    with pytest.raises(ModelError, match="no saved retriever"):
        Retriever.load(tmp_path)
    single.save(tmp_path / "damaged")
    weights = next((tmp_path / "damaged").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        Retriever.load(tmp_path / "damaged")


def test_encoders_of_other_spaces_are_refused(single):
    class Wider(TextEncoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.dimension = 48

    with pytest.raises(ConfigError, match=r"vectors of 48 numbers.*of 32"):
        Retriever(Wider(), single.passage_encoder)
