"""A generator: prompts, what fits, what is kept."""

import json

import pytest
import torch

from trainshed.errors import ConfigError, DataError
from trainshed.models.encoders import weights_hash
from trainshed.rag.generator import Generator, saved_template
from trainshed.rag.prompts import PASSAGE_FIRST, QUESTION_FIRST, PromptTemplate

QUERY, CONTEXT = "which word has the red cat ?", "the red cat keeps the word kabor"


@pytest.fixture
def generator(random_llama, tokenizer) -> Generator:
    return Generator(random_llama, tokenizer)


def test_its_length_is_the_models_unless_told(random_llama, tokenizer):
    assert Generator(random_llama, tokenizer).max_length == 128
    assert Generator(random_llama, tokenizer, max_length=64).max_length == 64
    with pytest.raises(ConfigError, match="max_length is 129, but the model reads 128"):
        Generator(random_llama, tokenizer, max_length=129)


def test_prompts_with_and_without_a_passage(generator, tokenizer):
    (with_it, without), (alone,) = generator.tokenize([QUERY, QUERY], [[CONTEXT, None], []], ["kabor", None])
    assert tokenizer.decode(with_it.input_ids) == f"{CONTEXT}\nQuestion: {QUERY}\nAnswer: kabor<eos>"
    assert tokenizer.decode(without.input_ids) == f"Question: {QUERY}\nAnswer: kabor<eos>"
    assert tokenizer.decode(alone.input_ids) == f"Question: {QUERY}\nAnswer:"


@pytest.mark.parametrize("text", [PASSAGE_FIRST, QUESTION_FIRST])
def test_a_passage_longer_than_the_context_is_cut_for_every_use(random_llama, tokenizer, text):
    generator = Generator(random_llama, tokenizer, template=PromptTemplate(text), max_length=48)
    long = " ".join([CONTEXT] * 20)
    prompt = generator.tokenize([QUERY], [[long]], ["kabor"])[0][0]
    assert len(prompt) == 48
    assert tokenizer.decode(prompt.answer) == " kabor<eos>"
    assert tokenizer.decode(prompt.input_ids).count(QUERY) == 1
    assert generator.generate([QUERY], [[long]], max_new_tokens=4).texts
    nll, tokens = generator.answer_nll([QUERY], [[long]], ["kabor"])
    score = generator.scorer().score([QUERY], [[long]], ["kabor"])
    assert float(nll) == pytest.approx(-float(score.log_likelihood), rel=1e-5)
    assert int(tokens) == int(score.n_tokens) == len(prompt.answer)


def test_question_and_answer_that_do_not_fit_are_an_error(random_llama, tokenizer):
    generator = Generator(random_llama, tokenizer, max_length=12)
    with pytest.raises(DataError, match=r"(?s)question and answer alone are \d+ tokens.*max_length"):
        generator.answer_nll([QUERY * 3], [[CONTEXT]], ["kabor"])
    with pytest.raises(DataError, match="alone are"):
        generator.generate([QUERY * 3], [[CONTEXT]], max_new_tokens=4)
    with pytest.raises(ConfigError, match="max_new_tokens is 12"):
        generator.generate([QUERY], [[CONTEXT]], max_new_tokens=12)


def test_the_mixture_of_one_passage_is_its_likelihood(generator):
    contexts = [[CONTEXT], [CONTEXT[:10]]]
    nll, tokens = generator.answer_nll([QUERY] * 2, contexts, ["kabor", "the blue owl"])
    scores = generator.scorer().score([QUERY] * 2, contexts, ["kabor", "the blue owl"])
    assert torch.allclose(nll, -scores.log_likelihood[:, 0], atol=1e-4)
    assert torch.equal(tokens, scores.n_tokens)


def test_equal_weights_where_none_are_given(generator):
    contexts = [[CONTEXT, "the dog", "a"]]
    given, _ = generator.answer_nll([QUERY], contexts, ["kabor"], [torch.full((3,), 1 / 3).log()])
    assert torch.allclose(generator.answer_nll([QUERY], contexts, ["kabor"])[0], given)


def test_save_and_load(random_llama, tokenizer, tmp_path):
    template = PromptTemplate(
        "Q: {query}\nC: {context}\nA:", no_context="{query} =", answer_prefix="", chat=False
    )
    generator = Generator(random_llama, tokenizer, template=template)
    generator.save(tmp_path / "generator")
    loaded = Generator.from_name(str(tmp_path / "generator"))
    assert loaded.template.digest == template.digest
    assert weights_hash(loaded.model) == weights_hash(random_llama)
    contexts = [[CONTEXT, "the dog"]]
    before = generator.generate([QUERY], contexts, max_new_tokens=5)
    after = loaded.generate([QUERY], contexts, max_new_tokens=5)
    assert (before.texts, before.posteriors[0].tolist()) == (after.texts, after.posteriors[0].tolist())
    other = PromptTemplate(PASSAGE_FIRST)
    assert Generator.from_name(str(tmp_path / "generator"), template=other).template is other
    assert saved_template(None) is None
    assert saved_template(str(tmp_path)) is None
    assert json.loads((tmp_path / "generator" / "prompt.json").read_text())["no_context"] == "{query} ="


def test_bfloat16_computes_in_it(random_llama, tokenizer):
    exact, half = Generator(random_llama, tokenizer), Generator(random_llama, tokenizer, dtype="bfloat16")
    values = [g.answer_nll([QUERY], [[CONTEXT]], ["kabor"])[0] for g in (exact, half)]
    assert values[0] != values[1]
    assert torch.allclose(values[0], values[1], rtol=0.02)
    assert random_llama.dtype == torch.float32
