"""The mixture over passages, token by token, against a loop written by hand."""

import copy

import pytest
import torch

from trainshed.rag.ensemble import MixOverPassages, _Listener
from trainshed.rag.generator import Generator

QUERIES = ["which word has the red cat ?", "which word has the pink owl ?", "which word ?"]
CONTEXTS = [
    ["the red cat keeps the word kabor", "the red dog", "the blue cat keeps the word which has the word"],
    ["pink"],
    ["the white hen keeps the word sudan", "owl owl"],
]
WEIGHTS = [torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([1.0]).log(), torch.tensor([0.9, 0.1]).log()]
STEPS = 7


@pytest.fixture(params=["random", "copying"])
def generator(request, tokenizer) -> Generator:
    model = copy.deepcopy(request.getfixturevalue(f"{request.param}_llama"))
    if request.param == "random":  # weights as small as initial ones make every next token alike
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(6 if weight.dim() > 1 else 1)
    return Generator(model, tokenizer)


def by_hand(generator, query, contexts, weights, steps=STEPS, marginal=False):
    """Mix probabilities (not logarithms) one token and one passage at a time."""
    end = generator.tokenizer.eos_token_id
    prompts = [p.prompt_ids for p in generator.tokenize([query], [contexts], [None])[0]]
    tokens, joint = [], weights.double()
    for _ in range(steps):
        rows = []
        for prompt in prompts:
            with torch.no_grad():
                logits = generator.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
            rows.append(torch.softmax(logits.double(), dim=-1))
        each = torch.stack(rows)
        prior = joint if marginal else weights.double()
        token = int((prior.exp().unsqueeze(1) * each).sum(0).argmax())
        joint = joint + each[:, token].log()
        tokens.append(token)
        if token == end:
            break
    return generator.tokenizer.decode(tokens, skip_special_tokens=True).strip(), torch.softmax(joint, dim=0)


def test_generate_equals_a_loop_by_hand(generator):
    found = generator.generate(QUERIES, CONTEXTS, WEIGHTS, max_new_tokens=STEPS)
    for row in range(len(QUERIES)):
        text, posterior = by_hand(generator, QUERIES[row], CONTEXTS[row], WEIGHTS[row])
        assert found.texts[row] == text
        assert torch.allclose(found.posteriors[row].double(), posterior, atol=1e-4)
        assert float(found.posteriors[row].sum()) == pytest.approx(1.0, abs=1e-6)
    assert len(set(found.texts)) > 1


def test_marginal_answers_equal_a_loop_by_hand(generator):
    found = generator.generate(QUERIES, CONTEXTS, WEIGHTS, max_new_tokens=STEPS, marginal=True)
    for row in range(len(QUERIES)):
        text, posterior = by_hand(generator, QUERIES[row], CONTEXTS[row], WEIGHTS[row], marginal=True)
        assert found.texts[row] == text
        assert torch.allclose(found.posteriors[row].double(), posterior, atol=1e-4)


def test_marginal_nll_is_that_of_whole_answers(generator):
    answers = ["kabor", "the word", "sudan"]
    nll, _ = generator.answer_nll(QUERIES, CONTEXTS, answers, WEIGHTS, marginal=True)
    for row, answer in enumerate(answers):
        each = generator.scorer().score([QUERIES[row]], [CONTEXTS[row]], [answer]).log_likelihood[0]
        whole = -(WEIGHTS[row].exp() * each.double().exp()).sum().log()
        assert float(nll[row]) == pytest.approx(float(whole), abs=1e-4)


def test_weights_matter(copying_llama, tokenizer):
    generator = Generator(copying_llama, tokenizer)
    contexts = [["the red cat keeps the word kabor", "the red cat keeps the word sudan"]]
    texts = [
        generator.generate(QUERIES[:1], contexts, [torch.tensor(w).log()], max_new_tokens=3).texts[0]
        for w in ([0.95, 0.05], [0.05, 0.95])
    ]
    assert texts == ["kabor", "sudan"]


def test_one_passage_is_plain_greedy_decoding(generator):
    for query, contexts in zip(QUERIES, CONTEXTS, strict=True):
        prompt = generator.tokenize([query], [contexts[:1]], [None])[0][0].prompt_ids
        plain = generator.model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=STEPS,
            do_sample=False,
            pad_token_id=generator.tokenizer.pad_token_id,
            eos_token_id=generator.tokenizer.eos_token_id,
        )
        text = generator.tokenizer.decode(plain[0, len(prompt) :], skip_special_tokens=True).strip()
        found = generator.generate([query], [contexts[:1]], max_new_tokens=STEPS)
        assert found.texts == [text]
        assert found.posteriors[0].tolist() == [1.0]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_batch_answers_as_one_at_a_time(generator, temperature):
    options = {"max_new_tokens": STEPS, "temperature": temperature}
    together = generator.generate(QUERIES, CONTEXTS, WEIGHTS, **options)
    alone = [
        generator.generate([q], [c], [w], **options)
        for q, c, w in zip(QUERIES, CONTEXTS, WEIGHTS, strict=True)
    ]
    assert together.texts == [found.texts[0] for found in alone]
    for row, found in enumerate(alone):
        assert torch.allclose(together.posteriors[row], found.posteriors[0], atol=1e-5)


def test_no_passages_answer_from_the_question_alone(generator):
    found = generator.generate(QUERIES[:2], [[], CONTEXTS[0]], max_new_tokens=STEPS)
    prompt = generator.tokenize(QUERIES[:1], [[]], [None])[0][0].prompt_ids
    assert "Question" in generator.tokenizer.decode(prompt)
    text, _ = by_hand(generator, QUERIES[0], [None], torch.zeros(1))
    assert found.texts[0] == text
    assert found.posteriors[0].tolist() == [1.0]


def test_drawing_is_seeded_and_leaves_global_generators(random_llama, tokenizer):
    generator = Generator(random_llama, tokenizer)
    state = torch.random.get_rng_state()

    def draw(seed, temperature=1.0):
        return generator.generate(
            QUERIES, CONTEXTS, WEIGHTS, max_new_tokens=STEPS, temperature=temperature, seed=seed
        ).texts

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(3, temperature=1e-4) == generator.generate(QUERIES, CONTEXTS, WEIGHTS, max_new_tokens=7).texts
    assert torch.equal(state, torch.random.get_rng_state())


def test_draws_follow_the_mixture_and_are_one_for_all_rows():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    weights = torch.tensor([0.75, 0.25])
    mix = MixOverPassages(
        torch.tensor([0, 0]), weights.log(), temperature=1.0, generators=[torch.Generator().manual_seed(0)]
    )
    counts = torch.zeros(3)
    for _ in range(1500):
        chosen = mix(None, logits).argmax(dim=1)
        assert chosen[0] == chosen[1]
        counts[chosen[0]] += 1
    expected = (weights.unsqueeze(1) * torch.softmax(logits, dim=1)).sum(0)
    assert torch.allclose(counts / 1500, expected, atol=0.05)


def test_what_follows_the_end_counts_for_no_passage():
    end, heard = 2, []
    mix = MixOverPassages(torch.tensor([0, 0, 1]), torch.tensor([0.5, 0.5, 1.0]).log())
    listener = _Listener(mix, end, heard.append)
    listener.put(torch.zeros(3, 4, dtype=torch.long))
    totals = torch.zeros(3)
    draw = torch.Generator().manual_seed(0)
    for step, tokens in enumerate(([1, 1, 0], [end, end, 1], [0, 0, 1], [0, 0, end])):
        logits = torch.randn(3, 3, generator=draw)
        mix(None, logits)
        listener.put(torch.tensor(tokens))
        gained = torch.log_softmax(logits, dim=1)[torch.arange(3), torch.tensor(tokens)]
        totals += torch.where(torch.tensor([step < 2, step < 2, True]), gained, 0.0)
    assert torch.allclose(mix.log_likelihood, totals)
    assert heard == [1]


def test_tokens_that_are_ruled_out_stay_ruled_out():
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [0.5, -torch.inf, -torch.inf]])
    mixed = MixOverPassages(torch.tensor([0, 0]), torch.tensor([0.5, 0.5]).log())(None, logits)
    assert torch.isneginf(mixed[:, 1]).all()
    expected = (0.5 * torch.softmax(logits, dim=1)).sum(0)
    assert torch.allclose(mixed.exp(), expected.expand(2, -1), atol=1e-6)


def test_answer_nll_equals_the_mixture_by_hand(generator):
    answers = ["kabor", "the red owl", "which word has it"]
    nll, counts = generator.answer_nll(QUERIES, CONTEXTS, answers, WEIGHTS)
    for row in range(len(QUERIES)):
        total, expected = 0.0, generator.tokenize([QUERIES[row]], [CONTEXTS[row]], [answers[row]])[0]
        answer = expected[0].answer
        assert answer[-1] == generator.tokenizer.eos_token_id
        for place, token in enumerate(answer):
            mixed = 0.0
            for weight, prompt in zip(WEIGHTS[row].double().exp(), expected, strict=True):
                with torch.no_grad():
                    logits = generator.model(torch.tensor([prompt.prompt_ids + answer[:place]])).logits[0, -1]
                mixed += float(weight * torch.softmax(logits.double(), dim=-1)[token])
            total -= torch.tensor(mixed).log().item()
        assert float(nll[row]) == pytest.approx(total, abs=1e-3)
        assert int(counts[row]) == len(answer)


def test_the_model_is_left_as_it_was(random_llama, tokenizer):
    generator = Generator(random_llama, tokenizer)
    random_llama.train()
    try:
        generator.generate(QUERIES, CONTEXTS, max_new_tokens=2)
        generator.answer_nll(QUERIES, CONTEXTS, ["a", "b", "c"])
        assert random_llama.training
    finally:
        random_llama.eval()
