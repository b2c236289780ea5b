"""Completions are the same for the same seed, end where they end, and leave the world as it was."""

import torch

from trainshed.policy.rollouts import stream, trimmed
from trainshed.policy.sampling import Sampling, inside_completion, pad_left, sample_completions


def test_what_is_inside():
    tokens = torch.tensor([[5, 1, 5], [5, 6, 7], [1, 1, 1]])
    inside, ended = inside_completion(tokens, [1])
    assert inside.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert ended.tolist() == [True, False, True]
    assert inside_completion(tokens, [1, 6])[0].tolist()[1] == [True, True, False]


def test_padding_on_the_left():
    ids, mask = pad_left([[4, 5], [6]], 0, "cpu")
    assert ids.tolist() == [[4, 5], [0, 6]]
    assert mask.tolist() == [[1, 1], [0, 1]]


def test_the_seed_decides(random_llama):
    prompts = [[5, 6, 7], [8], [9, 10]] * 2
    how = Sampling(max_new_tokens=5, temperature=0.9, top_k=50, stop_ids=(1,))
    state = torch.random.get_rng_state()
    one = sample_completions(random_llama, prompts, how, seed=1, batch_size=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    again = sample_completions(random_llama, prompts, how, seed=1, batch_size=4)
    other = sample_completions(random_llama, prompts, how, seed=2, batch_size=4)
    assert torch.equal(one.input_ids, again.input_ids)
    assert not torch.equal(one.tokens, other.tokens)
    assert one.input_ids.shape == (6, 3 + one.mask.shape[1])
    assert [row[row != 0].tolist() for row in one.input_ids[:, :3]] == prompts
    assert torch.equal(one.attention_mask[:, 3:].bool(), one.mask)


def test_frequencies_are_those_of_the_temperature(random_llama):
    how = Sampling(max_new_tokens=1, temperature=0.05, stop_ids=(1,))
    found = sample_completions(random_llama, [[5, 6]] * 2000, how, seed=0, batch_size=500)
    with torch.no_grad():
        wanted = (random_llama(torch.tensor([[5, 6]])).logits[0, -1] / 0.05).softmax(-1)
    seen = torch.bincount(found.tokens[:, 0], minlength=len(wanted)) / 2000
    top = wanted.topk(5).indices
    error = (wanted[top] * (1 - wanted[top]) / 2000).sqrt()
    assert ((seen[top] - wanted[top]).abs() < 4.5 * error + 1e-3).all()


def test_every_prompt_comes_once_before_any_comes_again():
    found = [index for number in range(7) for index in stream(10, 4, number, seed=3)]
    assert sorted(found[:10]) == sorted(found[10:20]) == list(range(10))
    assert found[:10] != found[10:20]
    assert len(set(stream(3, 8, 0, seed=0))) == 3


def test_padding_is_cut_away():
    batch = {
        "input_ids": torch.arange(12).view(2, 6),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0]]),
        "mask": torch.tensor([[True, False, False], [True, True, False]]),
        "values": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "wins": torch.tensor([0.1, 0.2]),
    }
    found = trimmed(batch)
    assert found["input_ids"].tolist() == [[1, 2, 3, 4], [7, 8, 9, 10]]
    assert found["mask"].tolist() == [[True, False], [True, True]]
    assert found["values"].tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert torch.equal(found["wins"], batch["wins"])


def test_without_a_temperature_the_likeliest_token_comes(random_llama, recwarn):
    how = Sampling(max_new_tokens=4, temperature=0.0, top_p=0.3, top_k=2, stop_ids=(1,))
    prompts = [[5, 6, 7], [8]]
    one, other = (sample_completions(random_llama, prompts, how, seed=seed) for seed in (1, 2))
    assert torch.equal(one.tokens, other.tokens)
    for prompt, tokens, inside in zip(prompts, one.tokens, one.mask, strict=True):
        ids = list(prompt)
        for token in tokens[inside].tolist():
            with torch.no_grad():
                assert token == int(random_llama(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)
    assert not recwarn.list
