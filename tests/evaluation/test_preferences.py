"""Margins of pairs against asking the model token by token."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainshed.errors import DataError
from trainshed.evaluation.language import LanguageModel
from trainshed.evaluation.preferences import measure_preferences, preference_margins, preference_metrics

WORDS = ["<pad>", "</s>", "[user]", "[bot]", "a", "b", "c", "d"]
ROWS = [
    {"prompt": "a b", "chosen": " c d", "rejected": " d"},
    {"prompt": "c", "chosen": " a", "rejected": " b b b"},
]
TEMPLATE = (
    "{% for m in messages %}[{{ 'user' if m.role == 'user' else 'bot' }}] {{ m.content }} "
    "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}[bot] {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    made.add_tokens(["[user]", "[bot]"])
    made.chat_template = TEMPLATE
    return made


def build(seed, tokenizer):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def slowly(model, tokenizer, text, completion):
    ids = tokenizer(text)["input_ids"]
    total = 0.0
    for token in [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]:
        total += float(torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)[token])
        ids = [*ids, token]
    return total


def test_margins_equal_token_by_token(tokenizer):
    policy, reference = build(0, tokenizer), build(1, tokenizer)
    likelihood = {
        model: [
            slowly(model, tokenizer, row["prompt"], row["chosen"])
            - slowly(model, tokenizer, row["prompt"], row["rejected"])
            for row in ROWS
        ]
        for model in (policy, reference)
    }
    alone = preference_margins(policy, tokenizer, ROWS)
    assert alone.tolist() == pytest.approx(likelihood[policy], abs=1e-4)
    beside = preference_margins(policy, tokenizer, ROWS, reference=reference)
    wanted = [a - b for a, b in zip(likelihood[policy], likelihood[reference], strict=True)]
    assert beside.tolist() == pytest.approx(wanted, abs=1e-4)


def test_conversations_are_read_by_the_template(tokenizer):
    def talk(role, text):
        return [{"role": role, "content": text}]

    policy = build(0, tokenizer)
    rows = [
        {
            "prompt": talk("user", row["prompt"]),
            "chosen": talk("assistant", row["chosen"].strip()),
            "rejected": talk("assistant", row["rejected"].strip()),
        }
        for row in ROWS
    ]
    plain = [{**row, "prompt": f"[user] {row['prompt']} [bot]"} for row in ROWS]
    assert torch.allclose(
        preference_margins(policy, tokenizer, rows), preference_margins(policy, tokenizer, plain), atol=1e-5
    )


def test_the_policy_that_has_not_moved_prefers_nothing(tokenizer):
    policy = build(0, tokenizer)
    found = preference_metrics(preference_margins(policy, tokenizer, ROWS, reference=policy))
    assert found == {"preference/accuracy": 0.5, "preference/margin": 0.0}


def test_metrics_by_hand():
    found = preference_metrics(torch.tensor([2.0, -1.0, 0.0, 3.0]))
    assert found == {"preference/accuracy": 0.625, "preference/margin": 1.0}


def test_an_empty_prompt_is_named(tokenizer):
    with pytest.raises(DataError, match="pair 2, chosen"):
        preference_margins(build(0, tokenizer), tokenizer, [ROWS[0], {**ROWS[1], "prompt": ""}])


def test_measuring_a_model_beside_its_reference(tokenizer):
    policy, reference = (LanguageModel(build(seed, tokenizer), tokenizer) for seed in (0, 1))
    rows = [*ROWS, {"prompt": "a", "chosen": " b", "rejected": " b"}]
    before = measure_preferences(reference, rows, ["x", "y", "z"])
    after = measure_preferences(policy, rows, ["x", "y", "z"], reference=before)
    likelihood = preference_margins(policy.model, tokenizer, rows)
    reward = preference_margins(policy.model, tokenizer, rows, reference=reference.model)
    assert after.values["likelihood_margin"] == pytest.approx(likelihood.tolist(), abs=1e-5)
    assert after.values["reward_margin"] == pytest.approx(reward.tolist(), abs=1e-5)
    assert after.values["likelihood_accuracy"].tolist() == [*(likelihood[:2] > 0).double().tolist(), 0.5]
    assert after.mean("reward_accuracy") == pytest.approx(preference_metrics(reward)["preference/accuracy"])
    assert before.metrics == ["likelihood_accuracy", "likelihood_margin"]


def test_both_answers_lose_the_same_of_a_long_prompt(tokenizer, capsys):
    """Then the margin is that of the rest of the prompt."""
    model = build(0, tokenizer)
    long = [{**ROWS[1], "prompt": "a b c d c"}]
    found = measure_preferences(LanguageModel(model, tokenizer, 6), long, ["row 1"])
    # three tokens and the end are left of six for the rejected answer, so two for the prompt
    plain = preference_margins(model, tokenizer, [{**ROWS[1], "prompt": "d c"}])
    assert found.values["likelihood_margin"] == pytest.approx(plain.tolist(), abs=1e-5)
    assert "1 of 1 prompts lost their beginning to fit into 6 tokens" in capsys.readouterr().err
    with pytest.raises(DataError, match="an answer leaves no room") as caught:
        measure_preferences(LanguageModel(model, tokenizer, 4), long, ["row 1"])
    assert caught.value.where == "row 1"
