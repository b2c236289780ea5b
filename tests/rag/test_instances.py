"""RALT instances carry loss on the answer only, and a step in parts has the gradient of the whole step."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainshed.errors import DataError
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.instances import answer_weight, build_instances, collate, ralt_backward, ralt_loss
from trainshed.rag.prompts import PASSAGE_FIRST, QUESTION_FIRST, PromptTemplate, PromptTokenizer

QUESTIONS = [
    ("What does os.path.join do?", "It joins pathname components", ["Join components.", "Sort.", "A tail."]),
    ("Which function sorts?", "sorted", ["sorted(iterable): Return a new sorted list.", "A docstring."]),
    ("What is the default of key?", "None", ["key=None"]),
]


@pytest.fixture(scope="module")
def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        [text for query, answer, contexts in QUESTIONS for text in (query, answer, *contexts)],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>")


def build(kind, tokenizer, dtype=torch.float64, positions=256):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=positions,
            initializer_range=0.2,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
        return GPT2LMHeadModel(config).to(dtype)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(dtype)


def instances(tokenizer, text=QUESTION_FIRST, max_length=128, weights=None):
    prompts = PromptTokenizer(PromptTemplate(text), tokenizer, max_length=max_length)
    return [
        instance
        for query, answer, contexts in QUESTIONS
        for instance in build_instances(
            prompts, query, contexts, answer, weights=weights and weights[: len(contexts)]
        )
    ]


def gradients(model):
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def test_only_the_answer_and_its_end_carry_loss(tokenizer):
    for text in (QUESTION_FIRST, PASSAGE_FIRST):
        for instance in instances(tokenizer, text):
            carried = [label for label in instance.labels if label != -100]
            assert carried == instance.input_ids[-len(carried) :]
            assert carried[-1] == tokenizer.eos_token_id
            answer = tokenizer.decode(carried[:-1])
            assert answer in {" " + answer for _, answer, _ in QUESTIONS}
            assert len(instance.labels) == len(instance.input_ids) == len(instance)


def test_a_long_passage_is_cut_and_the_answer_never(tokenizer):
    prompts = PromptTokenizer(PromptTemplate(PASSAGE_FIRST), tokenizer, max_length=48)
    answer = "It joins pathname components"
    (instance,) = build_instances(prompts, "What?", ["Join components. " * 100], answer)
    assert len(instance) == 48
    assert tokenizer.decode(instance.prompt.answer) == f" {answer}</s>"
    with pytest.raises(DataError, match="q1"):
        build_instances(prompts, "What?", ["Join"], answer * 20, question_id="q1")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("text", [QUESTION_FIRST, PASSAGE_FIRST])
@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_loss_and_gradient_are_those_of_the_plain_batch(kind, text, budget, tokenizer):
    model, batch = build(kind, tokenizer), instances(tokenizer, text)
    plain = model(**collate(batch)).loss
    plain.backward()
    expected = gradients(model)
    answers = AnswerModel(model)

    whole = ralt_loss(answers, batch, tokens_per_batch=budget)
    whole.backward()
    in_parts = ralt_backward(answers, batch, tokens_per_batch=budget, backward=lambda loss: None)
    assert in_parts.item() == pytest.approx(plain.item(), rel=1e-5)
    assert whole.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-6), name

    ralt_backward(answers, batch, tokens_per_batch=budget)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-6), name


def test_shared_starts_carry_the_gradient(tokenizer):
    model, batch = build("llama", tokenizer), instances(tokenizer)
    assert AnswerModel(model).shares_starts()
    ralt_backward(AnswerModel(model, share_starts=False), batch)
    expected = gradients(model)
    ralt_backward(AnswerModel(model), batch)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-6, atol=1e-7), name


def test_weights_scale_each_instance(tokenizer):
    model, weights = build("llama", tokenizer), [2.0, 0.5, 0.0]
    batch = instances(tokenizer, weights=weights)
    each = [ralt_loss(AnswerModel(model), [instance], denominator=1.0).item() for instance in batch]
    unweighted = instances(tokenizer)
    ones = [ralt_loss(AnswerModel(model), [instance], denominator=1.0).item() for instance in unweighted]
    assert each == pytest.approx([one * batch[i].weight for i, one in enumerate(ones)])
    assert ralt_loss(AnswerModel(model), batch).item() == pytest.approx(sum(each) / answer_weight(batch))


def test_parts_of_a_step_add_up(tokenizer):
    model, batch = build("llama", tokenizer), instances(tokenizer)
    answers, whole = AnswerModel(model), answer_weight(batch)
    ralt_backward(answers, batch)
    expected = gradients(model)
    total = sum(
        float(ralt_backward(answers, part, denominator=whole)) for part in (batch[:2], batch[2:4], batch[4:])
    )
    assert total == pytest.approx(ralt_loss(answers, batch).item())
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-6, atol=1e-7), name


def test_a_scaled_backward_scales_the_shared_starts_too(tokenizer):
    model, batch = build("llama", tokenizer), instances(tokenizer)
    ralt_backward(AnswerModel(model), batch)
    expected = gradients(model)
    ralt_backward(AnswerModel(model), batch, backward=lambda loss: (loss * 1024).backward())
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, 1024 * expected[name], rtol=1e-6, atol=1e-4), name


def test_every_weight_learns_under_autocast_from_the_first_step(tokenizer):
    model, batch = build("llama", tokenizer, torch.float32), instances(tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ralt_backward(AnswerModel(model), batch)
    rough = gradients(model)
    ralt_backward(AnswerModel(model), batch)
    for name, gradient in gradients(model).items():
        assert rough[name] is not None, name
        cosine = torch.nn.functional.cosine_similarity(rough[name].flatten(), gradient.flatten(), dim=0)
        assert cosine > 0.98, name


def test_gradient_checkpointing_is_respected(tokenizer):
    model, batch = build("llama", tokenizer), instances(tokenizer)
    answers = AnswerModel(model)
    ralt_backward(answers, batch)
    expected = gradients(model)
    model.train()
    model.gradient_checkpointing_enable()
    assert not answers.shares_starts()
    ralt_backward(answers, batch)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-6, atol=1e-7), name


def test_frozen_weights_get_no_gradient(tokenizer):
    model, batch = build("llama", tokenizer), instances(tokenizer)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    ralt_backward(AnswerModel(model), batch)
    assert {name for name, gradient in gradients(model).items() if gradient is not None} == {
        name for name, _ in model.named_parameters() if "layers.1" in name
    }


def test_a_model_with_no_position_to_spare(tokenizer):
    longest = max(len(instance) for instance in instances(tokenizer))
    model = build("gpt2", tokenizer, positions=longest)
    batch = instances(tokenizer, max_length=longest)
    assert AnswerModel(model).shares_starts()
    expected = model(**collate(batch)).loss.item()
    assert ralt_loss(AnswerModel(model), batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_loss_over_nothing_is_refused(tokenizer):
    with pytest.raises(ValueError, match="weight above 0"):
        ralt_loss(AnswerModel(build("llama", tokenizer)), instances(tokenizer, weights=[0.0, 0.0, 0.0]))
