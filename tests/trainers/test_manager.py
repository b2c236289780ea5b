"""The manager: which part learns, from which dataset, in which turns."""

import itertools

import pytest
from transformers import TrainerCallback

from trainshed.config.trainers.lsr import LSRParameters
from trainshed.config.trainers.ralt import RALTParameters
from trainshed.errors import ConfigError, DataError, NotAvailableError
from trainshed.models.encoders import weights_hash
from trainshed.rag.generator import Generator
from trainshed.rag.retriever import Retriever
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.lsr import HuggingFaceTrainerForLSR
from trainshed.trainers.manager import HuggingFaceRAGTrainerManager
from trainshed.trainers.ralt import HuggingFaceTrainerForRALT

ARGUMENTS = {
    "max_steps": 3,
    "per_device_train_batch_size": 8,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_steps": 1,
}
LSR = LSRParameters(candidates=6, gate=False)


class Steps(TrainerCallback):
    """Notes every step, and fails after a number of them."""

    def __init__(self, name, seen, fail_at=None):
        self.name, self.seen, self.fail_at = name, seen, fail_at

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append((self.name, state.global_step))
        if len(self.seen) == self.fail_at:
            raise OSError("killed")


def manager_of(
    system, mode, examples=None, *, trainer_examples=None, seen=None, fail_at=None, **more
) -> HuggingFaceRAGTrainerManager:
    seen = [] if seen is None else seen
    return HuggingFaceRAGTrainerManager(
        mode,
        retriever_trainer=HuggingFaceTrainerForLSR(
            system, trainer_examples, ARGUMENTS, parameters=LSR, callbacks=[Steps("lsr", seen, fail_at)]
        ),
        generator_trainer=HuggingFaceTrainerForRALT(
            system,
            trainer_examples,
            ARGUMENTS,
            parameters=RALTParameters(passages_per_question=2),
            callbacks=[Steps("ralt", seen, fail_at)],
        ),
        train_dataset=examples,
        **more,
    )


def state_of(system) -> tuple[str, str]:
    return system.retriever.query_hash(), weights_hash(system.generator.model)


def test_the_mode_says_which_part_learns_and_may_change(make_system, examples):
    system = make_system()
    manager = manager_of(system, "retriever", examples)
    states = [state_of(system)]
    for mode in ("retriever", "generator", "retriever"):
        manager.mode = mode
        assert manager.mode == mode
        result = manager.train()
        assert isinstance(result.loss, float)
        assert result.loss > 0
        assert result.steps == 3
        states.append(state_of(system))
    assert [a[0] != b[0] for a, b in itertools.pairwise(states)] == [True, False, True]
    assert [a[1] != b[1] for a, b in itertools.pairwise(states)] == [False, True, False]


@pytest.mark.parametrize("where", ["trainer", "manager", "train"])
def test_the_dataset_may_be_given_in_three_places(make_system, examples, where):
    manager = manager_of(
        make_system(),
        "generator",
        examples if where == "manager" else None,
        trainer_examples=examples if where == "trainer" else None,
    )
    result = manager.train(examples) if where == "train" else manager.train()
    assert result.steps == 3
    assert manager.generator_trainer.train_dataset == examples


def test_which_dataset_wins(make_system, examples):
    first, second, third = examples[:8], examples[8:16], examples[16:24]
    manager = manager_of(make_system(), "generator", second, trainer_examples=first)
    assert manager.generator_trainer.train_dataset == first
    manager.train(third)
    assert manager.generator_trainer.train_dataset == third
    assert manager.retriever_trainer.train_dataset == third


def test_without_a_dataset_it_says_where_to_give_one(make_system):
    with pytest.raises(DataError, match=r"to the trainer, to its manager, or to train\(\)"):
        manager_of(make_system(), "retriever").train()


def test_what_cannot_be_meant(make_system, examples):
    system = make_system()
    ralt = HuggingFaceTrainerForRALT(system, examples)
    with pytest.raises(ConfigError, match=r"mode 'retriever' needs a retriever trainer"):
        HuggingFaceRAGTrainerManager("retriever", generator_trainer=ralt)
    with pytest.raises(ConfigError, match=r"(?s)unknown mode 'generater'.*did you mean 'generator'"):
        HuggingFaceRAGTrainerManager("generater", generator_trainer=ralt)
    manager = HuggingFaceRAGTrainerManager("generator", generator_trainer=ralt)
    for mode in ("both", "retriever"):
        with pytest.raises(ConfigError, match=f"mode '{mode}' needs a retriever trainer"):
            manager.mode = mode
    assert manager.mode == "generator"
    other = HuggingFaceTrainerForLSR(make_system(), examples)
    with pytest.raises(ConfigError, match="different RAG systems"):
        HuggingFaceRAGTrainerManager("both", retriever_trainer=other, generator_trainer=ralt)
    with pytest.raises(ConfigError, match="cycles is 0"):
        HuggingFaceRAGTrainerManager("generator", generator_trainer=ralt, cycles=0)


@pytest.mark.parametrize("mode", ["retriever", "generator", "both"])
def test_federation_is_not_available_yet(make_system, mode):
    with pytest.raises(NotAvailableError, match=r"(?s)not available in this version.*train\(\)"):
        manager_of(make_system(), mode).get_federated_task()


def test_both_take_turns_and_learn_from_each_other(make_system, examples):
    system, seen = make_system(), []
    manager = manager_of(system, "both", examples, seen=seen, cycles=2)
    seeds = [manager.retriever_trainer.seed, manager.generator_trainer.seed]
    result = manager.train()
    turns = [[(name, step) for step in (1, 2, 3)] for name in ("lsr", "ralt", "lsr", "ralt")]
    assert seen == [pair for turn in turns for pair in turn]
    assert result.steps == 12
    assert isinstance(result.loss, float)
    assert result.loss == result.metrics["cycle2/generator/train/loss"]
    assert {name.rsplit("/", 2)[0] for name in result.metrics} == {
        "cycle1/retriever",
        "cycle1/generator",
        "cycle2/retriever",
        "cycle2/generator",
    }
    assert [row["step"] for row in result.history] == list(range(1, 13))
    assert "cycle2/retriever/train/loss" in result.history[7]
    assert [manager.retriever_trainer.seed, manager.generator_trainer.seed] == seeds

    # the same by hand
    other = make_system()
    manager = manager_of(other, "retriever", examples)
    for cycle in range(2):
        for mode in ("retriever", "generator"):
            manager.mode = mode
            part = manager.retriever_trainer if mode == "retriever" else manager.generator_trainer
            part.set_seed(cycle)
            manager.train()
    assert state_of(other) == state_of(system)


def test_both_go_on_after_an_interruption_without_repeating_turns(make_system, examples, tmp_path):
    ends, fail_at = [], 9  # in the third of four turns
    for name, crashes in (("whole", []), ("killed", [fail_at])):
        settings = TrainerSettings(directory=tmp_path / name, resume=True, device="cpu")
        for fail in [*crashes, None]:
            system, seen = make_system(), []
            manager = manager_of(
                system, "both", examples, seen=seen, fail_at=fail, cycles=2, settings=settings
            )
            for part in (manager.retriever_trainer, manager.generator_trainer):
                part.settings = settings
            if fail is None:
                result = manager.train()
            else:
                with pytest.raises(OSError, match="killed"):
                    manager.train()
        ends.append((state_of(system), result))
    assert ends[0] == ends[1]
    assert len(seen) == 12 - fail_at + 1  # the step that failed had no checkpoint yet


def test_the_managers_settings_are_for_parts_without(make_system, examples, tmp_path):
    settings = TrainerSettings(directory=tmp_path / "checkpoints", resume=True, device="cpu")
    manager = manager_of(make_system(), "both", examples, settings=settings)
    manager.train()
    for part in ("retriever", "generator"):
        assert [path.name for path in (tmp_path / "checkpoints" / part).iterdir()] == [f"cycle1-{part}"]
    own = TrainerSettings(directory=tmp_path / "own")
    trainer = HuggingFaceTrainerForRALT(manager.generator_trainer.rag_system, examples, settings=own)
    HuggingFaceRAGTrainerManager("generator", generator_trainer=trainer, settings=settings)
    assert trainer.settings == own


def test_evaluate_and_save(make_system, examples, tmp_path):
    system = make_system()
    manager = manager_of(system, "both", examples)
    for part in (manager.retriever_trainer, manager.generator_trainer):
        part._eval_examples = examples[:8]
    metrics = manager.evaluate()
    assert set(metrics) == {"retriever/eval/mrr@10", "retriever/eval/recall@1", "generator/eval/loss"}
    manager.mode = "generator"
    assert set(manager.evaluate()) == {"generator/eval/loss"}
    manager.mode = "both"
    manager.train()
    manager.save(tmp_path / "outputs")
    retriever = Retriever.load(tmp_path / "outputs" / "retriever")
    generator = Generator.from_name(str(tmp_path / "outputs" / "generator"))
    assert (retriever.query_hash(), weights_hash(generator.model)) == state_of(system)
