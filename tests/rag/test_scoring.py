"""Batched scoring equals asking the model token by token, one pair at a time."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from trainshed.errors import DataError
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.prompts import PASSAGE_FIRST, QUESTION_FIRST, PromptTemplate, tokenize
from trainshed.rag.score_cache import ScoreCache
from trainshed.rag.scoring import AnswerScorer, narrowed

QUERIES = ["What does os.path.join do?", "Which function sorts?", "What is the default of key in sorted?"]
CONTEXTS = [
    ["Join two or more pathname components, inserting / as needed.", "Sort.", "Return the tail of a path."],
    ["sorted(iterable): Return a new sorted list from the items in iterable.", "A module docstring."],
    ["key=None"],
]
ANSWERS = ["It joins pathname components", "sorted", "None"]
MAX_LENGTH = 128


@pytest.fixture(scope="module")
def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = QUERIES + ANSWERS + [text for texts in CONTEXTS for text in texts]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def build(kind, vocab_size):
    torch.manual_seed(0)
    small = dict(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        max_position_embeddings=512,
    )
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**small))
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.2
        )
        return GPT2LMHeadModel(config)
    if kind == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**small, head_dim=8, final_logit_softcapping=3.0))
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**small, sliding_window=12))
    config = Mamba2Config(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        head_dim=8,
        num_heads=8,
        expand=2,
        n_groups=1,
        chunk_size=16,
        initializer_range=0.2,
    )
    return Mamba2ForCausalLM(config)


@pytest.fixture(scope="module")
def llama(tokenizer):
    return build("llama", len(tokenizer))


@torch.no_grad()
def token_by_token(model, tokenizer, template, query, context, answer, max_length=MAX_LENGTH):
    """The slow way: one pair, one forward pass a token, probabilities of the whole vocabulary."""
    model.eval()
    prompt = tokenize(template, tokenizer, query, context, answer, max_length=max_length)
    ids, total = list(prompt.prompt_ids), 0.0
    for token in prompt.answer:
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, -1)[token])
        ids.append(token)
    return total


def expected(model, tokenizer, template, max_length=MAX_LENGTH):
    return [
        [
            token_by_token(model, tokenizer, template, query, context, answer, max_length)
            for context in contexts
        ]
        for query, contexts, answer in zip(QUERIES, CONTEXTS, ANSWERS, strict=True)
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral", "mamba2"])
@pytest.mark.parametrize("text", [PASSAGE_FIRST, QUESTION_FIRST])
@pytest.mark.parametrize("budget", [64, 4096])
def test_equals_token_by_token(kind, text, budget, tokenizer):
    model, template = build(kind, len(tokenizer)), PromptTemplate(text)
    scorer = AnswerScorer(model, tokenizer, template, max_length=MAX_LENGTH, tokens_per_batch=budget)
    scores = scorer.score(QUERIES, CONTEXTS, ANSWERS, closed_book=True)
    for row, values in enumerate(expected(model, tokenizer, template)):
        assert scores.log_likelihood[row, : len(values)].tolist() == pytest.approx(values, abs=1e-4)
    alone = [
        token_by_token(model, tokenizer, template, query, None, answer)
        for query, answer in zip(QUERIES, ANSWERS, strict=True)
    ]
    assert scores.closed_book.tolist() == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "shares"),
    [("llama", True), ("gpt2", True), ("gemma2", False), ("mistral", False), ("mamba2", False)],
)
def test_starts_are_shared_where_the_model_allows_it(kind, shares, tokenizer):
    assert AnswerModel(build(kind, len(tokenizer))).shares_starts() is shares


def test_shared_starts_are_computed_once(llama, tokenizer):
    def tokens_read(text):
        seen = []
        handle = llama.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        scorer = AnswerScorer(llama, tokenizer, PromptTemplate(text), max_length=512, tokens_per_batch=1)
        scorer.score(["What a model can share is tried out once?" * 3], [["one", "two"]], ["a"])
        seen.clear()
        passages = ["one", "two", "six", "ten", "key", "sort"]
        scorer.score(["Which function of the os module joins names?" * 3], [passages], ["a"])
        handle.remove()
        return sum(seen)

    assert tokens_read(QUESTION_FIRST) < 0.6 * tokens_read(PASSAGE_FIRST)


def test_ragged_passages_are_masked(llama, tokenizer):
    scores = AnswerScorer(llama, tokenizer, PromptTemplate(PASSAGE_FIRST), max_length=MAX_LENGTH).score(
        QUERIES, [CONTEXTS[0], [], CONTEXTS[2]], ANSWERS
    )
    assert scores.mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert torch.equal(scores.log_likelihood == -torch.inf, ~scores.mask)
    assert scores.closed_book is None


def test_n_tokens_counts_the_end(llama, tokenizer):
    scores = AnswerScorer(llama, tokenizer, PromptTemplate(PASSAGE_FIRST), max_length=MAX_LENGTH).score(
        QUERIES, CONTEXTS, ANSWERS
    )
    for count, answer in zip(scores.n_tokens.tolist(), ANSWERS, strict=True):
        assert count == len(tokenizer(" " + answer).input_ids) + 1


def test_long_answers_do_not_underflow(llama, tokenizer):
    answer = " ".join(["joins pathname components"] * 12)
    template = PromptTemplate(QUESTION_FIRST)
    scores = AnswerScorer(llama, tokenizer, template, max_length=512).score(
        QUERIES[:1], CONTEXTS[:1], [answer]
    )
    values = scores.log_likelihood[0]
    assert values.max() < -110  # exp() of it is 0 in float32
    assert len(set(values.tolist())) == 3
    first = token_by_token(llama, tokenizer, template, QUERIES[0], CONTEXTS[0][0], answer, 512)
    assert float(values[0]) == pytest.approx(first, abs=1e-3)


def test_passages_are_cut_to_fit(llama, tokenizer):
    template = PromptTemplate(QUESTION_FIRST)
    long = ["join " * 300, "sort " * 300]
    scores = AnswerScorer(llama, tokenizer, template, max_length=64).score(QUERIES[:1], [long], ANSWERS[:1])
    values = [token_by_token(llama, tokenizer, template, QUERIES[0], text, ANSWERS[0], 64) for text in long]
    assert scores.log_likelihood[0].tolist() == pytest.approx(values, abs=1e-4)


def test_a_question_that_does_not_fit_is_named(llama, tokenizer):
    scorer = AnswerScorer(llama, tokenizer, PromptTemplate(PASSAGE_FIRST), max_length=16)
    with pytest.raises(DataError, match="q-17"):
        scorer.score(QUERIES[:1], CONTEXTS[:1], ANSWERS[:1], ids=["q-17"])


def test_bfloat16_is_close(llama, tokenizer):
    template = PromptTemplate(QUESTION_FIRST)
    exact = AnswerScorer(llama, tokenizer, template, max_length=MAX_LENGTH)
    rough = AnswerScorer(llama, tokenizer, template, max_length=MAX_LENGTH, dtype=torch.bfloat16)
    one, two = (scorer.score(QUERIES, CONTEXTS, ANSWERS) for scorer in (exact, rough))
    assert two.log_likelihood.dtype == torch.float32
    assert torch.allclose(one.log_likelihood[one.mask], two.log_likelihood[two.mask], rtol=0.05, atol=0.3)


def test_a_copy_in_bfloat16_follows_the_weights_and_leaves_the_model_alone(llama, tokenizer):
    model = copy.deepcopy(llama)
    scorer = AnswerScorer(
        model, tokenizer, PromptTemplate(QUESTION_FIRST), max_length=MAX_LENGTH, dtype=torch.bfloat16
    )
    attention = model.config._attn_implementation
    before = scorer.score(QUERIES, CONTEXTS, ANSWERS).log_likelihood
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    after = scorer.score(QUERIES, CONTEXTS, ANSWERS).log_likelihood
    fresh = AnswerScorer(
        model, tokenizer, PromptTemplate(QUESTION_FIRST), max_length=MAX_LENGTH, dtype=torch.bfloat16
    ).score(QUERIES, CONTEXTS, ANSWERS)
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh.log_likelihood)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == attention
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_is_copied_in_half_precision(llama, tokenizer):
    found = narrowed(llama, torch.bfloat16, plain_attention=True)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in found.buffers()} == {torch.float32}  # rotary frequencies
    assert narrowed(llama, torch.float32, plain_attention=True) is None
    assert narrowed(llama, None, plain_attention=True) is None
    assert narrowed(found, torch.bfloat16, plain_attention=True) is None


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training, tokenizer):
    model = build("gpt2", len(tokenizer)).train(training)  # has dropout
    scorer = AnswerScorer(model, tokenizer, PromptTemplate(QUESTION_FIRST), max_length=MAX_LENGTH)
    one, two = (scorer.score(QUERIES, CONTEXTS, ANSWERS).log_likelihood for _ in range(2))
    assert torch.equal(one, two)
    assert model.training is training
    assert not one.requires_grad


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contexts=st.lists(st.lists(st.text(max_size=40), max_size=4), min_size=1, max_size=4),
    budget=st.integers(1, 500),
    question_first=st.booleans(),
)
def test_neither_order_nor_batching_changes_a_score(llama, tokenizer, contexts, budget, question_first):
    template = PromptTemplate(QUESTION_FIRST if question_first else PASSAGE_FIRST)
    queries = [f"What is passage {row} about?" for row in range(len(contexts))]
    answers = [f"It is about {row}" for row in range(len(contexts))]
    scorer = AnswerScorer(llama, tokenizer, template, max_length=160, tokens_per_batch=budget)
    scores = scorer.score(queries, contexts, answers)
    for row, passages in enumerate(contexts):
        single = scorer.score([queries[row]], [passages[::-1]], [answers[row]]).log_likelihood[0]
        assert torch.allclose(scores.log_likelihood[row, : len(passages)].flip(0), single, atol=1e-4)


def test_a_cached_score_costs_no_forward_pass(tokenizer, tmp_path):
    model = build("llama", len(tokenizer))
    passes = []
    model.register_forward_pre_hook(lambda module, args: passes.append(1))
    arguments = (model, tokenizer, PromptTemplate(QUESTION_FIRST))
    path = tmp_path / "scores.sqlite"
    with ScoreCache(path) as cache:
        scorer = AnswerScorer(*arguments, max_length=MAX_LENGTH, cache=cache)
        first = scorer.score(QUERIES, CONTEXTS, ANSWERS, closed_book=True)
        assert passes
        passes.clear()
        again = scorer.score(QUERIES, CONTEXTS, ANSWERS, closed_book=True)
    with ScoreCache(path) as cache:  # another process, as it were
        fresh = AnswerScorer(*arguments, max_length=MAX_LENGTH, cache=cache)
        later = fresh.score(QUERIES, CONTEXTS, ANSWERS, closed_book=True)
    assert not passes
    for other in (again, later):
        assert torch.equal(first.log_likelihood, other.log_likelihood)
        assert torch.equal(first.closed_book, other.closed_book)
        assert torch.equal(first.n_tokens, other.n_tokens)


def test_changed_weights_are_scored_anew(tokenizer):
    model = build("llama", len(tokenizer))
    scorer = AnswerScorer(
        model, tokenizer, PromptTemplate(QUESTION_FIRST), max_length=MAX_LENGTH, cache=ScoreCache()
    )
    before = scorer.score(QUERIES, CONTEXTS, ANSWERS).log_likelihood
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    after = scorer.score(QUERIES, CONTEXTS, ANSWERS).log_likelihood
    assert not torch.allclose(before, after)


def test_what_decides_a_score_decides_its_scope(llama, tokenizer):
    def scope(text=QUESTION_FIRST, *, max_length=MAX_LENGTH, dtype=None):
        return AnswerScorer(
            llama, tokenizer, PromptTemplate(text), max_length=max_length, dtype=dtype
        ).scope()

    scopes = [scope(), scope(PASSAGE_FIRST), scope(max_length=99), scope(dtype=torch.bfloat16)]
    assert len(set(scopes)) == len(scopes)
    assert scope() == scopes[0]


def test_the_same_pair_twice_is_scored_once(llama, tokenizer):
    scorer = AnswerScorer(llama, tokenizer, PromptTemplate(PASSAGE_FIRST), max_length=MAX_LENGTH)
    rows = []
    handle = llama.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    scores = scorer.score([QUERIES[0]] * 2, [CONTEXTS[0][:2]] * 2, [ANSWERS[0]] * 2)
    handle.remove()
    assert sum(rows) == 2
    assert torch.equal(scores.log_likelihood[0], scores.log_likelihood[1])
