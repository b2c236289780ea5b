"""RALT: which tokens carry loss, that nothing else changes, that the generator learns to answer and stop."""

import copy
import dataclasses
import math

import pytest
import torch
from transformers import TrainerCallback

from trainshed.config.trainers.ralt import RALTParameters
from trainshed.data.examples import RagExample
from trainshed.data.passages import Passage
from trainshed.errors import DataError
from trainshed.models.encoders import weights_hash
from trainshed.rag.generator import Generator, saved_template
from trainshed.rag.prompts import QUESTION_FIRST, PromptTemplate
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.ralt import HuggingFaceTrainerForRALT

ARGUMENTS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-3,
    "logging_steps": 1,
    "save_steps": 2,
}


def trainer_of(system, examples, own=None, arguments=None, **more) -> HuggingFaceTrainerForRALT:
    values = {**ARGUMENTS, **(arguments or {})}
    own = {"packing": False, **(own or {})}
    return HuggingFaceTrainerForRALT(system, examples, values, parameters=RALTParameters(**own), **more)


def state_of(system) -> dict[str, str | bytes]:
    return {
        "queries": system.retriever.query_hash(),
        "passages": system.retriever.passage_hash(),
        "store": system.knowledge_store.embeddings().numpy().tobytes(),
        "generator": weights_hash(system.generator.model),
    }


def nll_by_hand(model, tokenizer, instances) -> tuple[float, float]:
    """Sum answer tokens' losses one instance at a time, with the library's own labels."""
    total = weight = 0.0
    for instance in instances:
        ids, labels = torch.tensor([instance.input_ids]), torch.tensor([instance.labels])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss
        count = int((labels != -100).sum())
        total, weight = total + float(loss) * count * instance.weight, weight + count * instance.weight
    return total, weight


def test_only_the_answer_and_the_end_carry_loss(make_system, examples, tokenizer):
    system = make_system()
    trainer = trainer_of(system, examples)
    rows = trainer.train_data()
    assert len(rows) == len(examples)
    for example, row in zip(examples, rows, strict=True):
        found = system.retrieve(example.query, 4)
        assert len(row) == 4
        for candidate, instance in zip(found, row, strict=True):
            prompt = f"{candidate.passage.text}\nQuestion: {example.query}\nAnswer:"
            assert tokenizer.decode(instance.input_ids) == f"{prompt} {example.response}<eos>"
            learnt = [label for label in instance.labels if label != -100]
            assert tokenizer.decode(learnt) == f" {example.response}<eos>"
            assert instance.weight == 1.0


def test_packed_rows_weigh_the_same_tokens(make_system, examples, tokenizer):
    rows = trainer_of(make_system(), examples, {"packing": True}).train_data()
    assert len(rows) < 4 * len(examples)
    assert max(map(len, rows)) <= 128
    learnt = [[i for i, w in zip(row.ids, row.weights, strict=True) if w] for row in rows]
    found = sorted("".join(tokenizer.decode(ids) for ids in learnt).split("<eos>")[:-1])
    assert found == sorted(f" {e.response}" for e in examples for _ in range(4))


@pytest.mark.parametrize("template", [None, QUESTION_FIRST])
def test_the_first_loss_is_the_mean_over_answer_tokens_packed_or_not(
    make_system, examples, tokenizer, template
):
    losses = []
    for packing in (False, True):
        system = make_system()
        if template is not None:
            system.generator = Generator(system.generator.model, tokenizer, template=PromptTemplate(template))
        trainer = trainer_of(
            system,
            examples,
            {"packing": packing, "weight_by_retrieval": True, "include_no_context": 0.5},
            {"max_steps": 1, "per_device_train_batch_size": 400},
        )
        if not packing:
            instances = [instance for row in trainer.train_data() for instance in row]
            total, weight = nll_by_hand(system.generator.model, tokenizer, instances)
        losses.append(trainer.train().loss)
    assert losses[0] == pytest.approx(total / weight, rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("template", [None, QUESTION_FIRST])
def test_gradients_in_parts_are_those_of_the_whole(make_system, examples, tokenizer, template):
    system = make_system()
    if template is not None:
        system.generator = Generator(system.generator.model, tokenizer, template=PromptTemplate(template))
    trainer = trainer_of(system, examples, {"weight_by_retrieval": True})
    batch = trainer.collate(trainer.train_data()[:12])
    model = system.generator.model.eval()
    weight = trainer.loss_weight(batch)

    def gradients(run):
        model.zero_grad()
        value = run()
        return float(value.detach()), {name: weight.grad.clone() for name, weight in model.named_parameters()}

    def whole():
        loss = trainer.loss_sum(model, batch) / weight
        loss.backward()
        return loss

    parts = []

    def backward(loss):
        parts.append(float(loss.detach()))
        loss.backward()

    expected, wanted = gradients(whole)
    found, got = gradients(lambda: trainer.backward(model, batch, weight, backward))
    assert len(parts) > 1
    assert found == pytest.approx(expected, rel=1e-5)
    assert sum(parts) == pytest.approx(expected, rel=1e-5)
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, atol=1e-6), name


@pytest.mark.parametrize("template", [None, QUESTION_FIRST])
def test_the_marginal_objective_is_the_answers_likelihood_over_passages(
    make_system, examples, tokenizer, template
):
    system = make_system()
    if template is not None:
        system.generator = Generator(system.generator.model, tokenizer, template=PromptTemplate(template))
    trainer = trainer_of(system, examples, {"objective": "marginal", "passages_per_question": 3})
    batch = trainer.collate(trainer.train_data()[:9])
    model = system.generator.model.eval()
    for parameter in model.parameters():  # far from the start, where every passage does as well
        parameter.data.mul_(3)
    by_hand, tokens, place = 0.0, 0, 0
    for count in batch["counts"]:
        likelihood = 0.0
        for instance in batch["instances"][place : place + count]:
            total, _ = nll_by_hand(model, tokenizer, [dataclasses.replace(instance, weight=1.0)])
            likelihood += instance.weight * math.exp(-total)
        by_hand -= math.log(likelihood)
        tokens += len(batch["instances"][place].prompt.answer)
        place += count
    weight = trainer.loss_weight(batch)
    assert weight == pytest.approx(tokens, rel=1e-5)
    model.zero_grad()
    loss = trainer.loss_sum(model, batch) / weight
    loss.backward()
    assert float(loss.detach()) == pytest.approx(by_hand / tokens, rel=1e-4)
    wanted = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    found = trainer.backward(model, batch, weight, torch.Tensor.backward)
    assert float(found) == pytest.approx(float(loss.detach()), rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name], atol=2e-4 * largest), name


@pytest.mark.parametrize(
    "other", [{"packing": True}, {"include_no_context": 0.5}, {"weight_by_retrieval": True}]
)
def test_the_marginal_objective_refuses_what_has_no_place_in_it(other):
    with pytest.raises(ValueError, match=next(iter(other))):
        RALTParameters(objective="marginal", **other)


@pytest.mark.parametrize(
    "own", [{}, {"packing": True}, {"objective": "marginal"}], ids=["each", "packed", "marginal"]
)
def test_the_generator_learns_to_answer_and_to_stop(make_system, examples, own):
    system = make_system(top_k=4, max_new_tokens=8)
    held_out = [
        RagExample(f"the {words[4]} {words[5]} has which word ?", example.response)
        for example in examples[:5]
        for words in [example.query.split()]
    ]
    trainer = trainer_of(
        system,
        examples[:5],
        own,
        {"max_steps": 100, "per_device_train_batch_size": 5, "learning_rate": 1e-2},
        eval_dataset=held_out,
    )
    before, loss = state_of(system), trainer.evaluate()["eval/loss"]
    trainer.train()
    after = state_of(system)
    assert after.pop("generator") != before.pop("generator")
    assert after == before
    assert trainer.evaluate()["eval/loss"] < 0.5 * loss
    answers = [response.response for response in system.batch_query([e.query for e in examples[:5]])]
    assert answers == [example.response for example in examples[:5]]  # and nothing comes after


def test_a_long_passage_never_cuts_the_answer(make_system, tokenizer):
    system = make_system()
    long = " ".join(["the red cat keeps the word kabor"] * 30)
    system.knowledge_store.upsert([Passage("p0", long)], system.retriever.encode_passages([long]))
    system.knowledge_store.delete([f"p{i}" for i in range(1, 40)])
    answer = "kabor lodan mifir"
    example = RagExample("which word has the red cat ?", answer, id="q")
    (instance,) = trainer_of(system, [example]).train_data()[0]
    assert len(instance) == 128
    assert tokenizer.decode(instance.input_ids).endswith(f"Question: {example.query}\nAnswer: {answer}<eos>")
    (shorter,) = trainer_of(system, [example], {"max_length": 64}).train_data()[0]
    assert len(shorter) == 64
    assert shorter.prompt.answer == instance.prompt.answer
    packed = trainer_of(system, [example], {"max_length": 64, "packing": True}).train_data()
    assert len(packed[0]) == 64


def test_question_and_answer_that_do_not_fit_are_an_error(make_system):
    system = make_system()
    example = RagExample("which word ?", "kabor " * 200, id="q17")
    with pytest.raises(DataError, match=r"(?s)alone are \d+ tokens.*question q17.*max_length"):
        trainer_of(system, [example]).train()


def test_weights_follow_retrieval(make_system, examples):
    system = make_system()
    for row, example in zip(
        trainer_of(system, examples, {"weight_by_retrieval": True}).train_data(), examples, strict=True
    ):
        scores = torch.tensor([candidate.score for candidate in system.retrieve(example.query, 4)])
        expected = 4 * torch.softmax(scores / system.rag_config.retrieval_temperature, dim=0)
        assert [instance.weight for instance in row] == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)])
def test_some_questions_come_without_a_passage_too(make_system, examples, share, low, high):
    system = make_system()
    found = []
    for _ in range(2):
        rows = trainer_of(system, examples, {"include_no_context": share}, seed=1).train_data()
        found.append([row for row, instances in enumerate(rows) if len(instances) == 5])
    assert low <= len(found[0]) <= high
    assert found[0] == found[1]
    for row in found[0]:
        assert rows[row][-1].prompt.context == []
    other = trainer_of(system, examples, {"include_no_context": share}, seed=2).train_data()
    moved = [row for row, instances in enumerate(other) if len(instances) == 5]
    assert (moved != found[0]) == (share == 0.5)


def test_every_call_retrieves_anew(make_system, examples):
    system = make_system()
    trainer = trainer_of(system, examples, arguments={"max_steps": 1})
    trainer.train()
    before = [instance.input_ids for row in trainer.train_data() for instance in row]
    assert trainer.train_data() is trainer.train_data()
    system.retriever.as_dual()
    with torch.no_grad():
        for weight in system.retriever.query_encoder.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    trainer.train()
    assert [instance.input_ids for row in trainer.train_data() for instance in row] != before


class Crash(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


@pytest.mark.parametrize("packing", [False, True])
def test_interrupted_and_resumed_it_ends_the_same(make_system, examples, packing, tmp_path):
    ends = []
    for name, crashes in (("whole", []), ("killed", [3, 7])):
        settings = TrainerSettings(directory=tmp_path / name, resume=True, device="cpu")
        for step in [*crashes, None]:
            system = make_system()
            callbacks = [] if step is None else [Crash(step)]
            own = {"packing": packing, "include_no_context": 0.3}
            arguments = {"max_steps": 10}
            trainer = trainer_of(system, examples, own, arguments, settings=settings, callbacks=callbacks)
            if step is None:
                result = trainer.train()
            else:
                with pytest.raises(OSError, match="killed"):
                    trainer.train()
        ends.append((state_of(system), result.loss, result.steps, result.history))
    assert ends[0] == ends[1]
    assert ends[0][2] == 10


def test_a_micro_batch_is_a_part_of_the_mean(make_system, examples):
    losses, hashes = [], []
    for size, accumulated in ((8, 1), (2, 4)):
        system = make_system()
        arguments = {
            "max_steps": 2,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulated,
            "train_sampling_strategy": "sequential",
        }
        result = trainer_of(system, examples, {"weight_by_retrieval": True}, arguments).train()
        losses.append([row["train/loss"] for row in result.history])
        hashes.append([weight.detach().clone() for weight in system.generator.model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(*hashes, strict=True))


def test_no_step_changes_nothing(make_system, examples):
    system = make_system()
    before = state_of(system)
    assert trainer_of(system, examples, arguments={"num_train_epochs": 0}).train().steps == 0
    assert state_of(system) == before


def test_save_and_load(make_system, examples, tmp_path):
    system = make_system()
    template = PromptTemplate("{context} // {query} =", answer_prefix=" ")
    system.generator = Generator(system.generator.model, system.generator.tokenizer, template=template)
    trainer = trainer_of(system, examples, arguments={"max_steps": 1})
    trainer.train()
    trainer.save(tmp_path / "outputs")
    loaded = Generator.from_name(str(tmp_path / "outputs"))
    assert weights_hash(loaded.model) == weights_hash(system.generator.model)
    assert loaded.template.digest == template.digest == saved_template(str(tmp_path / "outputs")).digest


def test_adapters_alone_learn(make_system, examples):
    from peft import LoraConfig, get_peft_model

    system = make_system()
    base = copy.deepcopy(system.generator.model)
    system.generator.model = get_peft_model(
        system.generator.model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    trainer_of(system, examples, arguments={"max_steps": 3}).train()
    model = system.generator.model
    assert any(bool(w.detach().any()) for n, w in model.named_parameters() if "lora_B" in n)
    with model.disable_adapter():
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(model(ids).logits, base(ids).logits)
