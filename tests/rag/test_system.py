"""A whole system: every way to ask gives one answer, with citations; what is saved is what was asked."""

import asyncio
import json
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from trainshed.data.passages import Passage
from trainshed.errors import ConfigError, ModelError, StoreMismatchError
from trainshed.rag.building import build_store
from trainshed.rag.reranking import CrossEncoderReranker
from trainshed.rag.retriever import Retriever
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.rag.system import RAGConfig, RAGSystem


@pytest.fixture
def system(make_system, copying_llama) -> RAGSystem:
    return make_system(model=copying_llama)


@pytest.fixture
def queries(examples) -> list[str]:
    return [example.query for example in examples[:5]]


def same(one, other) -> bool:
    """Whether two responses agree, numbers to the rounding of another batch."""
    shares = [[c.share for c in response.citations] for response in (one, other)]
    return (
        one.response == other.response
        and [c.passage_id for c in one.citations] == [c.passage_id for c in other.citations]
        and [n.passage.id for n in one.source_nodes] == [n.passage.id for n in other.source_nodes]
        and shares[0] == pytest.approx(shares[1], abs=1e-4)
    )


@pytest.mark.parametrize("options", [{}, {"combine": "concat"}, {"temperature": 0.8, "seed": 3}])
def test_every_way_to_ask_agrees(make_system, copying_llama, queries, options):
    system = make_system(model=copying_llama, **options)
    together = system.batch_query(queries)
    small = system.batch_query(queries, batch_size=2)
    later = asyncio.run(system.abatch_query(queries))
    for row, query in enumerate(queries):
        alone = system.query(query)
        assert same(alone, together[row])
        assert same(alone, small[row])
        assert same(alone, later[row])
        assert same(alone, asyncio.run(system.aquery(query)))
        stream = system.stream(query)
        pieces = list(stream)
        assert "".join(pieces) == alone.response
        assert same(stream.response, alone)
    assert len({response.response for response in together}) > 1
    assert system.batch_query([]) == []


def test_questions_asked_at_once_do_not_block_the_loop(system, queries):
    async def ask():
        return await asyncio.gather(
            *(system.aquery(query) for query in queries), system.aretrieve(queries[0])
        )

    *answers, found = asyncio.run(ask())
    assert all(same(a, b) for a, b in zip(answers, system.batch_query(queries), strict=True))
    assert found == system.retrieve(queries[0])


def test_an_answer_comes_in_pieces(make_system, random_llama, queries):
    system = make_system(max_new_tokens=12)
    stream = system.stream(queries[0])
    first = next(stream)
    assert stream.response.response.startswith(first)
    assert len(first) < len(stream.response.response)
    assert list(stream) == []


def test_pieces_join_to_the_answer_even_when_it_ends_within_a_character(make_system, queries):
    answers = []
    for seed in range(8):
        system = make_system(max_new_tokens=12, temperature=1.0, seed=seed)
        answers.append(system.query(queries[0]).response)
        assert "".join(system.stream(queries[0])) == answers[-1]
    assert any(answer.endswith("\ufffd") for answer in answers)


def test_an_error_while_streaming_reaches_the_reader(system):
    system.rag_config = replace(system.rag_config, max_new_tokens=500)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        list(system.stream("which word ?"))


def test_retrieval_is_exact_and_in_order(system, queries):
    vectors = system.retriever.encode_queries(queries)
    scores = vectors @ system.knowledge_store.embeddings().T
    best = scores.topk(5)
    for row, found in enumerate(system.batch_retrieve(queries, 5)):
        assert [candidate.passage.id for candidate in found] == [f"p{i}" for i in best.indices[row].tolist()]
        assert [candidate.score for candidate in found] == pytest.approx(best.values[row].tolist(), abs=1e-5)
        assert [candidate.rank for candidate in found] == [1, 2, 3, 4, 5]
    assert len(system.retrieve(queries[0])) == 3
    assert len(system.retrieve(queries[0], 100)) == 40


def test_citations_say_where_the_answer_stands(system, queries):
    for response in system.batch_query(queries):
        assert response.citations[0].share == max(c.share for c in response.citations)
        assert sum(c.share for c in response.citations) <= 1 + 1e-6
        read = {node.passage.id for node in response.source_nodes}
        for citation in response.citations:
            assert citation.passage_id in read
            if citation.span is not None:
                start, end = citation.span
                assert citation.passage.text[start:end] == response.response
                assert citation.document_span == (100 + start, 100 + end)
        json.dumps(response.to_json())
    cited = system.batch_query(queries)[0].citations[0]
    assert cited.passage.title.startswith("page")
    assert cited.to_json()["doc_id"] == cited.passage.doc_id != ""


def test_shares_are_the_posterior_of_retrieval_and_generation(system, queries):
    response = system.query(queries[0])
    found = response.source_nodes
    contexts = [[node.passage.text for node in found]]
    scores = torch.tensor([node.score for node in found])
    prior = torch.log_softmax(scores / system.rag_config.retrieval_temperature, dim=0)
    likelihood = system.generator.scorer().score([queries[0]], contexts, [response.response])
    expected = torch.softmax(prior + likelihood.log_likelihood[0], dim=0)
    for citation in response.citations:
        place = [node.passage.id for node in found].index(citation.passage_id)
        assert citation.share == pytest.approx(float(expected[place]), abs=1e-3)


def test_the_likelihood_of_an_answer_is_that_of_the_mixture(system, examples):
    queries, answers = [e.query for e in examples[:4]], [e.response for e in examples[:4]]
    nll, tokens = system.answer_nll(queries, answers)
    for row, found in enumerate(system.batch_retrieve(queries)):
        scores = torch.tensor([candidate.score for candidate in found])
        prior = torch.log_softmax(scores / system.rag_config.retrieval_temperature, dim=0)
        contexts = [[candidate.passage.text for candidate in found]]
        alone, count = system.generator.answer_nll([queries[row]], contexts, [answers[row]], [prior])
        assert float(nll[row]) == pytest.approx(float(alone), abs=1e-4)
        assert int(tokens[row]) == int(count)


def test_joined_passages_make_one_prompt(make_system, copying_llama, queries):
    system = make_system(model=copying_llama, combine="concat", context_separator=" | ")
    response = system.query(queries[0])
    joined = " | ".join(node.passage.text for node in response.source_nodes)
    assert response.response == system.generate(queries[0], joined)
    scores = torch.tensor([node.score for node in response.source_nodes])
    shares = torch.softmax(scores / system.rag_config.retrieval_temperature, dim=0)
    assert response.citations[0].share == pytest.approx(float(shares.max()), abs=1e-5)


def test_without_retrieval(system, queries):
    alone = system.generator.generate([queries[0]], [[]], max_new_tokens=6)
    assert system.generate(queries[0]) == alone.texts[0]


def test_an_empty_store_answers_without_passages(system, queries):
    system.knowledge_store.clear()
    response = system.query(queries[0])
    assert (response.citations, response.source_nodes) == ([], [])
    assert response.response == system.generate(queries[0])


def test_fewer_passages_than_asked_for(system, queries):
    system.knowledge_store.delete([f"p{row}" for row in range(2, 40)])
    assert len(system.query(queries[0]).source_nodes) == 2
    assert torch.isfinite(system.answer_nll(queries[:1], ["kabor"])[0]).all()


@pytest.mark.parametrize("kind", ["hybrid", "faiss"])
def test_other_stores(make_system, queries, kind, tmp_path):
    system = make_system(store=kind)
    before = system.batch_query(queries)
    found = [[node.passage.id for node in response.source_nodes] for response in before]
    vectors = system.retriever.encode_queries(queries)
    dense = [
        [f"p{i}" for i in row]
        for row in (vectors @ system.knowledge_store.embeddings().T).topk(3)[1].tolist()
    ]
    assert (found == dense) == (kind == "faiss")
    assert found == system.knowledge_store.search(vectors, 3, texts=queries).ids
    system.save(tmp_path / "system")
    after = RAGSystem.load(tmp_path / "system").batch_query(queries)
    assert all(same(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def cross_encoder(encoder_directory, tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("cross")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder_directory)
    config = BertConfig.from_pretrained(encoder_directory, num_labels=1)
    config.vocab_size = len(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForSequenceClassification(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def test_a_reranker_orders_what_the_store_found(make_system, cross_encoder, queries, tmp_path):
    reranker = CrossEncoderReranker(cross_encoder)
    plain, system = make_system(), make_system(reranker=reranker, rerank_from=10)
    for query in queries:
        wide = plain.retrieve(query, 10)
        logits = reranker.scores([query], [[node.passage.text for node in wide]])[0]
        best = logits.topk(3)
        found = system.retrieve(query)
        assert [node.passage.id for node in found] == [wide[i].passage.id for i in best.indices.tolist()]
        assert [node.score for node in found] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert system.retrieve(queries[0]) != plain.retrieve(queries[0])
    system.save(tmp_path / "system")
    loaded = RAGSystem.load(tmp_path / "system")
    assert [n.passage.id for n in loaded.retrieve(queries[0])] == [
        n.passage.id for n in system.retrieve(queries[0])
    ]


def test_save_and_load(make_system, copying_llama, queries, tmp_path):
    system = make_system(model=copying_llama, top_k=2, combine="concat", max_new_tokens=4)
    system.retriever.as_dual()
    system.save(tmp_path / "system")
    loaded = RAGSystem.load(tmp_path / "system", device="cpu")
    assert loaded.rag_config == system.rag_config
    assert loaded.retriever.is_dual
    assert [r.to_json() for r in loaded.batch_query(queries)] == [
        r.to_json() for r in system.batch_query(queries)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["system"]


def test_references_are_relative_and_copy_nothing(system, queries, tmp_path):
    places = {name: tmp_path / "parts" / name for name in ("generator", "retriever", "knowledge_store")}
    for name, place in places.items():
        getattr(system, name).save(place)
    (tmp_path / "outputs").mkdir()
    system.save_references(tmp_path / "outputs", **places)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["system.json"]
    assert str(tmp_path) not in (tmp_path / "outputs" / "system.json").read_text()
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    loaded = RAGSystem.load(moved / "outputs")
    assert same(loaded.query(queries[0]), system.query(queries[0]))


def test_a_store_of_another_embedder_is_refused(system, other_encoder_directory, passages, tmp_path):
    system.save(tmp_path / "system")
    other = Retriever.from_names(str(other_encoder_directory))
    build_store(passages, other, directory=tmp_path / "system" / "knowledge_store")
    with pytest.raises(StoreMismatchError, match=r"(?s)embedder.*fix:"):
        RAGSystem.load(tmp_path / "system")


def test_a_trained_query_encoder_fits_the_store(system, tmp_path):
    system.retriever.as_dual()
    with torch.no_grad():
        next(system.retriever.query_encoder.parameters()).mul_(1.5)
    system.save(tmp_path / "system")
    assert RAGSystem.load(tmp_path / "system").retriever.query_hash() == system.retriever.query_hash()


def test_what_is_no_system_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"(?s)no saved RAG system.*system\.json"):
        RAGSystem.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"combine": "concatenate"}, "(?s)unknown way.*did you mean 'concat'"),
        ({"retrieval_temperature": 0.0}, "retrieval_temperature"),
    ],
)
def test_settings_that_cannot_be_meant(values, message):
    with pytest.raises(ConfigError, match=message):
        RAGConfig(**values)


def test_a_store_that_grows_is_searched_at_once(system):
    text = "the blue yak keeps the word sudan"
    system.knowledge_store.add([Passage("new", text)], system.retriever.encode_passages([text]))
    assert system.retrieve(text, 1)[0].passage.id == "new"
    assert isinstance(system.knowledge_store, KnowledgeStore)
