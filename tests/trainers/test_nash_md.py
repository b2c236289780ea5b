"""Nash-MD: it learns, plays against the mixture, and it resumes to the last bit."""

import pytest
import torch

from online_checks import maker
from trainshed.config.trainers.nash_md import NashMDParameters
from trainshed.models.encoders import weights_hash
from trainshed.policy.preferences import mixture_logits
from trainshed.trainers.nash_md import NashMDTrainer
from trl_checks import KillAt


@pytest.fixture
def make(choosing_llama, choosing_tokenizer, choosing_rows):
    return maker(NashMDTrainer, NashMDParameters, choosing_llama, choosing_tokenizer, choosing_rows)


@pytest.mark.slow
def test_it_learns_what_is_right_on_prompts_it_has_not_seen(make):
    arguments = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 130}
    own = {"rollout_batch_size": 64, "missing_eos_penalty": 0.5, "preference": "hard"}
    trainer = make(own, arguments={**arguments, "logging_steps": 20, "learning_rate": 3e-3})
    before = trainer.evaluate()
    history = trainer.train().history
    after = trainer.evaluate()
    assert before["eval/reward_exact_match"] < 0.5
    assert after["eval/reward_exact_match"] >= 0.75
    assert after["eval/kl"] < 5.0
    assert history[-1]["nash_md/score"] > history[0]["nash_md/score"] + 0.2


def test_the_mixture_is_sampled_from(make):
    """The first token's frequencies are those of the mixture, and neither player's."""
    trainer = make({"mixture_weight": 0.5, "generation_batch_size": 1000})
    with torch.no_grad():
        trainer.reference.lm_head.weight.mul_(-0.5)
    rows = [trainer._prompts[0]] * 2000
    done = trainer.complete(rows, 0, processors=trainer.mixture)
    ids = torch.tensor([rows[0].ids])
    with torch.no_grad():
        own, ref = trainer.model(ids).logits[0, -1], trainer.reference(ids).logits[0, -1]
    seen = torch.bincount(done.tokens[:, 0], minlength=len(own)) / 2000
    wanted = mixture_logits(own, ref, weight=0.5).softmax(-1)
    error = (wanted * (1 - wanted) / 2000).sqrt()
    assert ((seen - wanted).abs() < 4.5 * error + 1e-3).all()
    for player in (own, ref):
        assert ((seen - player.softmax(-1)).abs() > 4.5 * error + 1e-3).any()


def test_the_mixture_reads_padded_prompts_as_they_are(make):
    trainer = make(own={"mixture_weight": 1.0})
    ids, mask = torch.tensor([[0, 0, 3, 2], [3, 4, 5, 2]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    (mix,) = trainer.mixture(ids, mask)
    longer = torch.cat([ids, torch.tensor([[6], [7]])], 1)
    found = mix(longer, torch.randn(2, 11)).softmax(-1)
    with torch.no_grad():
        alone = trainer.reference(torch.tensor([[3, 2, 6]])).logits[0, -1].softmax(-1)
    torch.testing.assert_close(found[0], alone, atol=1e-5, rtol=1e-4)


def test_who_is_preferred(make):
    scores, others = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, 3.0])
    assert make({"preference": "hard"}).preferred(scores, others).tolist() == [1.0, 0.5, 0.0]
    soft = make({"preference_temperature": 0.5}).preferred(scores, others)
    torch.testing.assert_close(soft, torch.sigmoid(torch.tensor([2.0, 0.0, -2.0])))


def test_killed_and_resumed_ends_the_same(make, tmp_path):
    whole = make(path=tmp_path / "whole")
    expected = whole.train()
    with pytest.raises(OSError, match="killed"):
        make(path=tmp_path, callbacks=[KillAt(3)]).train()
    again = make(path=tmp_path)
    assert again.train() == expected
    assert weights_hash(again.module) == weights_hash(whole.module)
