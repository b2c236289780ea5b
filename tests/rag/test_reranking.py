"""Reranking with a tiny random cross-encoder: scores are those of one pair at a time, order follows them."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from trainshed.data.passages import Passage
from trainshed.errors import ModelError
from trainshed.rag.reranking import CrossEncoderReranker
from trainshed.rag.stores.memory import InMemoryKnowledgeStore

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "from",
    "home",
    "far",
    "away",
    "house",
    "tree",
    "sky",
    "blue",
    "red",
]


def save_model(directory, model, config) -> str:
    vocabulary = directory / "words.txt"
    directory.mkdir()
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(3)
    model(config).save_pretrained(directory)
    words = vocabulary.read_text().split()
    BertTokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, model_max_length=64
    ).save_pretrained(directory)
    return str(directory)


def config_of(**options) -> BertConfig:
    return BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        **options,
    )


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("models") / "cross"
    return save_model(directory, BertForSequenceClassification, config_of(num_labels=1))


def texts_of(count: int) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 30, (count,), generator=generator).tolist()
    return [
        " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (n,), generator=generator)) for n in lengths
    ]


def test_scores_equal_one_pair_at_a_time(cross_encoder):
    reranker = CrossEncoderReranker(cross_encoder, batch_size=3)
    texts, queries = texts_of(9), ["the cat sat", "blue sky", "home"]
    scores = reranker.scores(queries, [texts[:5], [], texts[5:]])
    assert [len(row) for row in scores] == [5, 0, 4]
    model = BertForSequenceClassification.from_pretrained(cross_encoder).eval()
    tokenizer = BertTokenizerFast.from_pretrained(cross_encoder)
    for query, own, row in zip(queries, [texts[:5], [], texts[5:]], scores, strict=True):
        for text, score in zip(own, row, strict=True):
            with torch.no_grad():
                alone = model(
                    **tokenizer(query, text, return_tensors="pt", truncation=True, max_length=64)
                ).logits
            assert float(score) == pytest.approx(float(alone), abs=1e-4)


def test_orders_a_search(cross_encoder):
    reranker, texts = CrossEncoderReranker(cross_encoder), texts_of(12)
    store = InMemoryKnowledgeStore()
    store.add([Passage(f"p{row}", text) for row, text in enumerate(texts)], torch.randn(12, 4))
    queries = ["the cat sat", "blue sky"]
    result = store.search(torch.randn(2, 4), 15)
    ordered = reranker.rerank(queries, result, store, k=5)
    assert ordered.indices.shape == ordered.scores.shape == (2, 5)
    for query, ids, indices, scores in zip(
        queries, ordered.ids, ordered.indices, ordered.scores, strict=True
    ):
        logits = reranker.scores([query], [texts])[0]
        assert [store.ids[row] for row in indices] == ids
        assert sorted(ids) == sorted(f"p{row}" for row in logits.topk(5).indices)
        assert torch.allclose(scores, logits.topk(5).values, atol=1e-4)
    everything = reranker.rerank(queries, result, store)
    assert everything.indices.shape == (2, 15)
    assert everything.indices[:, 12:].tolist() == [[-1] * 3] * 2
    assert bool(everything.scores[:, 12:].isneginf().all())
    nothing = InMemoryKnowledgeStore()
    assert reranker.rerank(queries, nothing.search(torch.randn(2, 4), 3), nothing).ids == [[], []]


def test_max_length_cuts(cross_encoder):
    reranker = CrossEncoderReranker(cross_encoder, max_length=12)
    start = "cat sat on the mat from home far away"
    same = reranker.scores(["the dog"], [[start + " blue sky", start + " red tree house"]])[0]
    assert float(same[0]) == float(same[1])


def test_refuses_what_is_no_cross_encoder(tmp_path, cross_encoder):
    encoder = save_model(tmp_path / "encoder", BertModel, config_of())
    with pytest.raises(ModelError, match="no head that scores pairs"):
        CrossEncoderReranker(encoder)
    three = save_model(tmp_path / "three", BertForSequenceClassification, config_of(num_labels=3))
    with pytest.raises(ModelError, match="3 labels"):
        CrossEncoderReranker(three)
    with pytest.raises(ModelError, match=r"(?s)cannot be loaded.*nowhere"):
        CrossEncoderReranker(tmp_path / "nowhere")
