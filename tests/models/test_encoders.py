"""Encoders: pooling, gradients, order, damage."""

import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from trainshed.errors import ModelError
from trainshed.models.encoders import (
    check_sha256,
    default_encoder_directory,
    load_encoder,
    weights_hash,
)

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
WORDS += ["while", "it", "rains", "in", "some", "small", "town"]


@pytest.fixture(scope="module")
def bert_directory(tmp_path_factory):
    """A plain AutoModel encoder of four thousand weights, dropout included."""
    path = tmp_path_factory.mktemp("bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(special) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(path)
    return path


@pytest.fixture
def encoder(bert_directory):
    return load_encoder(str(bert_directory))


def texts(n=23):
    return [" ".join(WORDS[i % 7 : i % 7 + 1 + i % 5]) for i in range(n)]


def test_mean_pooling_equals_a_hand_made_one(encoder, bert_directory):
    model = AutoModel.from_pretrained(bert_directory).eval()
    features = encoder.tokenizer(texts(), padding=True, return_tensors="pt")
    states = model(**features).last_hidden_state
    mask = features["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    torch.testing.assert_close(encoder.encode(texts()), expected, atol=1e-6, rtol=0)
    assert (encoder.dimension, encoder.normalize) == (16, True)


def test_encode_keeps_order_and_does_not_depend_on_the_batch(encoder):
    one_by_one = torch.stack([encoder.encode([text])[0] for text in texts()])
    torch.testing.assert_close(encoder.encode(texts(), batch_size=4), one_by_one, atol=1e-6, rtol=0)
    assert torch.equal(encoder.encode(texts()), encoder.encode(texts()))
    assert encoder.encode([]).shape == (0, 16)


def test_encode_leaves_every_mode_and_gradient_setting(encoder):
    encoder.train()
    part = next(module for module in encoder.modules() if isinstance(module, torch.nn.Dropout))
    part.eval()
    modes = [module.training for module in encoder.modules()]
    vectors = encoder.encode(texts())
    assert [module.training for module in encoder.modules()] == modes
    assert not vectors.requires_grad
    assert torch.equal(vectors, encoder.eval().encode(texts()))  # no dropout in either


def test_vectors_may_stand_in_a_graph(encoder):
    passages = encoder.encode(texts(5))
    (encoder(["the fox"]) @ passages.T).sum().backward()


def test_gradient_reaches_every_trainable_weight(encoder):
    weights = torch.arange(16.0)
    (encoder(texts()) @ weights).sum().backward()
    trainable = [(n, p) for n, p in encoder.named_parameters() if p.requires_grad]
    assert len(trainable) > 30
    for name, parameter in trainable:
        # token types of a single text are one row out of two
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name


def test_bfloat16_is_close_and_float32(encoder):
    vectors = encoder.encode(texts(), dtype=torch.bfloat16)
    assert vectors.dtype == torch.float32
    cosine = (vectors * encoder.encode(texts())).sum(1)
    assert cosine.min() > 0.999
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(23))


def test_long_texts_are_cut_and_counted(bert_directory):
    encoder = load_encoder(str(bert_directory), max_length=6)
    long, short = " ".join(WORDS), "the fox"
    assert encoder.truncated([long, short, long]) == 2
    assert torch.equal(encoder.encode([long]), encoder.encode([" ".join(WORDS[:4])]))
    assert load_encoder(str(bert_directory)).max_length == 32
    with pytest.raises(ModelError, match="cannot read 64 tokens"):
        load_encoder(str(bert_directory), max_length=64)


def test_saved_encoder_loads_everywhere(encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder.save_pretrained(tmp_path)
    again = load_encoder(str(tmp_path))
    assert weights_hash(again) == weights_hash(encoder)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(texts(), convert_to_tensor=True)
    torch.testing.assert_close(theirs, encoder.encode(texts()), atol=1e-6, rtol=0)
    assert AutoModel.from_pretrained(tmp_path).config.hidden_size == 16
    assert not list(tmp_path.rglob("*.bin"))


def test_weights_hash_sees_one_bit(encoder):
    before = weights_hash(encoder)
    with torch.no_grad():
        next(encoder.parameters()).view(-1).view(torch.int32)[0] ^= 1
    assert weights_hash(encoder) != before


def test_prompt_names(encoder, tmp_path):
    encoder.model.prompts = {"query": "the quick ", "document": ""}
    encoder.save_pretrained(tmp_path)
    prompted = load_encoder(str(tmp_path), prompt_name="query")
    torch.testing.assert_close(prompted.encode(["fox"]), encoder.encode(["the quick fox"]))
    with pytest.raises(ModelError, match="known: document, query"):
        load_encoder(str(tmp_path), prompt_name="title")


def test_one_text_instead_of_a_list_is_refused(encoder):
    for call in (encoder, encoder.encode):
        with pytest.raises(TypeError, match="list of texts"):
            call("the fox")


@pytest.mark.parametrize("damage", ["cut", "missing", "garbage"])
def test_damaged_weights_name_the_file(bert_directory, tmp_path, damage):
    path = shutil.copytree(bert_directory, tmp_path / "copy")
    weights = path / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "garbage":
        weights.write_bytes(b"\x00" * 64)
    else:
        weights.unlink()
    with pytest.raises(ModelError) as caught:
        load_encoder(str(path))
    assert "model.safetensors" in str(caught.value)


def test_missing_directory_and_name(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_encoder(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder("nobody/no-such-encoder")


def test_packaged_encoder():
    encoder = load_encoder()
    assert (encoder.dimension, encoder.max_length, encoder.normalize) == (384, 256, True)
    vectors = encoder.encode(["How do I open a file?", "open() returns a file object", "Cats sleep all day"])
    assert vectors[0] @ vectors[1] > 0.4 > 0.2 > vectors[0] @ vectors[2]


def test_packaged_weights_are_pinned(tmp_path):
    assert (default_encoder_directory() / "modules.json").is_file()
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="not the pinned ones"):
        check_sha256(tmp_path / "model.safetensors", "0" * 64)
