"""What stages and trainers read of the configuration while they work is what they declare, and no more.

A key that is read and not declared would let a result of another configuration pass for that of this one.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainshed.config.evaluation import evaluation_reads
from trainshed.config.fields import keys_of
from trainshed.config.resolved import RunConfig, TrainingSection, reads
from trainshed.config.schema import (
    SECTIONS,
    DataSection,
    EvaluationSection,
    ExecutionSection,
    ModelSection,
    RagSection,
)
from trainshed.data.jsonl import write_jsonl
from trainshed.models.causal_lm import save_causal_lm
from trainshed.plan.directory import RunDirectory
from trainshed.rag.system import RAGConfig
from trainshed.registry import STAGES, TRAINER_PARAMETERS, TRAINERS
from trainshed.stages.context import StageContext
from trainshed.trainers.rag_data import make_retriever

PROMPT = {"prompt": "{context}\n{query}", "no_context_prompt": "{query}"}
SETTINGS = {f"{n}.{key}" for n, s in SECTIONS.items() for key, spec in keys_of(s).items() if spec.setting}
#: how a section is taken as a whole, past its attributes
WHOLE = {"model_dump", "model_dump_json", "model_copy", "__iter__"}


def recording(name: str, values: Any, seen: set[str]) -> Any:
    """Return a section that notes which of its keys are read."""
    model = SECTIONS[name]

    class Recording(model):
        def __getattribute__(self, attribute: str) -> Any:
            if attribute in model.model_fields:
                seen.add(f"{name}.{attribute}")
            elif attribute in WHOLE:
                seen.update(f"{name}.{key}" for key in model.model_fields)
            return super().__getattribute__(attribute)

        def __iter__(self) -> Iterator[Any]:
            seen.update(f"{name}.{key}" for key in model.model_fields)
            return super().__iter__()

    return Recording.model_validate(values.model_dump(exclude_unset=True))


def declared(config: RunConfig) -> set[str]:
    """Return ``section.key`` of all that a run of this configuration may read."""
    parameters = TRAINER_PARAMETERS.get(config.training.algorithm) if config.training else None
    told = reads(config.stage, parameters)
    return {
        f"{name}.{key}"
        for name, keys in told.items()
        for key in (SECTIONS[name].model_fields if keys is None else keys)
    }


@pytest.fixture
def parts(tmp_path, passages, examples, encoder_directory, random_llama, tokenizer) -> dict[str, Path]:
    """Write the tiny system and its data down as a user has them."""
    found = {
        name: tmp_path / name for name in ("generator", "teacher", "data", "passages.jsonl", "documents")
    }
    for name in ("generator", "teacher"):
        found[name].mkdir()
        save_causal_lm(random_llama, tokenizer, found[name])
    kinds = ["colour", "animal"]
    questions = [{**e.to_json(), "kind": kinds[row % 2]} for row, e in enumerate(examples)]
    write_jsonl(found["data"] / "train.jsonl", questions[:8])
    for split in ("validation", "test"):
        write_jsonl(found["data"] / f"{split}.jsonl", questions[8:12])
    write_jsonl(found["passages.jsonl"], [passage.to_json() for passage in passages])
    found["documents"].mkdir()
    text = "\n\n".join(passage.text for passage in passages)
    (found["documents"] / "facts.md").write_text(f"# Facts\n\n{text}\n")
    return {**found, "encoder": Path(encoder_directory)}


@pytest.fixture
def configured(parts, tmp_path) -> Callable[..., tuple[StageContext, set[str]]]:
    """Return a function that makes the context of a run, and the set of the keys that it reads."""

    def make(stage: str, rag: dict[str, Any], **more: Any) -> tuple[StageContext, set[str]]:
        data = {"dataset_name": str(parts["data"]), "documents": str(parts["passages.jsonl"])}
        plain = RunConfig(
            name="run",
            stage=stage,
            execution=ExecutionSection(seed=1, device="cpu", algorithm=more.pop("algorithm", None)),
            model=more.pop("model", None) or ModelSection(model_name_or_path=str(parts["generator"])),
            data=DataSection(**{**data, **more.pop("data", {})}),
            rag=RagSection(**{"retriever": str(parts["encoder"]), **rag}),
            evaluation=EvaluationSection(**more.pop("evaluation", {})),
            **more,
        )
        seen: set[str] = set()
        sections = {name: recording(name, getattr(plain, name), seen) for name in SECTIONS}
        number = sum(1 for _ in tmp_path.glob("run*"))
        directory = RunDirectory(tmp_path / f"run{number}")
        directory.outputs.mkdir(parents=True)
        seen.clear()
        return StageContext(directory, dataclasses.replace(plain, **sections)), seen

    return make


@pytest.fixture
def store(configured) -> dict[str, str]:
    """Return a saved store, as a configuration names it."""
    context, _ = configured("index", {})
    STAGES.get("index")(context)
    return {"knowledge_store": str(context.directory.outputs / "knowledge_store")}


def told(seen: set[str]) -> set[str]:
    return {key for key in seen if key.startswith("rag.")}


@pytest.mark.parametrize("rag", [{}, {"hybrid": True}])
def test_building_an_index(configured, rag):
    context, seen = configured("index", rag)
    STAGES.get("index")(context)
    assert seen - SETTINGS <= declared(context.config)
    assert told(seen) <= declared(context.config)
    assert ("rag.rrf_k" in seen) is bool(rag)
    if rag:
        assert told(seen) == told(declared(context.config))


def test_preparing_a_corpus(configured, parts):
    cut = {"documents": str(parts["documents"]), "dataset_name": None, "chunk_tokens": 16, "chunk_overlap": 4}
    whole = {"documents": None, "dataset_name": "builtin", "max_passages": 50}
    for data, expected in ((cut, {"rag.retriever"}), ({}, set()), (whole, set())):
        context, seen = configured("corpus", {}, data=data)
        STAGES.get("corpus")(context)
        assert seen - SETTINGS <= declared(context.config)
        assert told(seen) == expected


def test_evaluating(configured, store, parts):
    evaluation = {
        "baseline_generator": str(parts["generator"]),
        "baseline_retriever": str(parts["encoder"]),
        "bootstrap_samples": 5,
    }
    for given in ({}, {"hybrid": True}, {**store, **PROMPT}):
        rag = {**given, "max_new_tokens": 2}
        context, seen = configured("evaluate", rag, evaluation=evaluation)
        STAGES.get("evaluate")(context)
        assert seen - SETTINGS <= declared(context.config)


MEASURES = {
    "perplexity": {},
    "preference": {"columns": {"rejected": "id", "chosen": "response"}},
    "reward": {"columns": {"answer": "response"}},
    "win_rate": {},
}


@pytest.mark.parametrize("measure", MEASURES)
def test_evaluating_a_language_model(configured, parts, measure):
    data = {"documents": None, **MEASURES[measure]}
    data["columns"] = {"prompt": "query", "completion": "response", **data.get("columns", {})}
    if measure != "perplexity":
        data["columns"].pop("completion")
    evaluation = {
        "language_model": [measure],
        "baseline_generator": str(parts["generator"]),
        "rewards": ["exact_match"] if measure == "reward" else [],
        "judge": "length" if measure == "win_rate" else None,
        "max_new_tokens": 2,
        "bootstrap_samples": 5,
    }
    context, seen = configured("evaluate", {}, data=data, evaluation=evaluation)
    STAGES.get("evaluate")(context)
    read = evaluation_reads([{measure}], EvaluationSection.model_fields)
    assert not told(seen)
    asked = {key for key in seen if key.startswith("evaluation.")}
    assert asked == {f"evaluation.{key}" for key in read["evaluation"]}
    assert seen - SETTINGS <= declared(context.config)


def test_evaluating_on_tasks(configured, parts, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="needs the extra `harness`")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_jsonl(tmp_path / "tasks" / "rows.jsonl", [{"a": "the red", "b": ["cat", "dog"]}])
    (tmp_path / "tasks" / "t.yaml").write_text(
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{a}}'\n"
        "doc_to_choice: '{{b}}'\ndoc_to_target: 0\nmetric_list: [{metric: acc}]\n"
    )
    evaluation = {"harness_tasks": ["t"], "harness_path": str(tmp_path / "tasks"), "bootstrap_samples": 5}
    evaluation["baseline_generator"] = str(parts["generator"])
    context, seen = configured("evaluate", {}, evaluation=evaluation)
    STAGES.get("evaluate")(context)
    read = evaluation_reads([{"harness_tasks"}], EvaluationSection.model_fields)
    assert {key for key in seen if key.startswith("evaluation.")} == {
        f"evaluation.{key}" for key in read["evaluation"]
    }
    assert not {key for key in seen - SETTINGS if key.startswith(("rag.", "data."))}


#: trainers of TRL
OFFLINE, JUDGED = ("cpo", "dpo", "kto", "orpo", "reward", "sft"), ("grpo", "rloo", "online_dpo")
TAUGHT = ("distillation", "gkd")
OWN = {
    "bco": [{"max_length": 64}],
    "nash_md": [{"rewards": ["exact_match"], "rollout_batch_size": 2, "max_new_tokens": 2}],
    "xpo": [{"rewards": ["exact_match"], "rollout_batch_size": 2, "max_new_tokens": 2}],
    "lsr": [{}, {"candidates": 3, "gate": False, "train_passage_encoder": True, "refresh_steps": 1}],
    "ralt": [{"packing": True}, {"weight_by_retrieval": True, "include_no_context": 0.5}],
    "rag": [{"mode": "both"}, {"mode": "generator"}],
    "mamba": [{"block_size": 64, "state_size": 8}],
    "pretrain": [{"block_size": 64}],
    "ppo": [{"rewards": ["exact_match"], "rollout_batch_size": 2, "max_new_tokens": 2}],
    "rl": [{"total_timesteps": 32, "n_envs": 2, "n_steps": 16, "minibatch_size": 32, "eval_episodes": 1}],
    **{name: [{}] for name in OFFLINE},
    **{name: [{"rewards": ["exact_match"]}] for name in JUDGED},
    **{name: [{}] for name in TAUGHT},
    "transformer": [
        {"max_length": 32, "chunk_overlap": 4, "text_column": "query", "calibration": "temperature"}
    ],
}
PAIRS = {"columns": {"prompt": "query", "chosen": "response", "rejected": "id"}}
COLUMNS = {
    **{name: PAIRS for name in OFFLINE},
    **{name: {"columns": {"prompt": "query", "answer": "response"}} for name in JUDGED},
    "sft": {"columns": {"prompt": "query", "completion": "response"}},
    **{name: {"columns": {"prompt": "query", "completion": "response"}} for name in TAUGHT},
    "transformer": {"columns": {"label": "kind"}},
    "bco": PAIRS,
    "nash_md": {"columns": {"prompt": "query", "answer": "response"}},
    "xpo": {"columns": {"prompt": "query", "answer": "response"}},
    "mamba": {"columns": {"prompt": "query", "completion": "response"}},
    "pretrain": {"columns": {"prompt": "query", "completion": "response"}},
    "ppo": {"columns": {"prompt": "query", "answer": "response"}},
}
#: what a system's own settings may decide of the training; all others only decide answers
ANSWERING = {
    "bco": set(),
    "nash_md": set(),
    "xpo": set(),
    "lsr": set(),
    "ralt": {"retrieval_temperature", "rerank_from"},
    "rag": {"retrieval_temperature", "rerank_from"},
    "mamba": set(),
    "pretrain": set(),
    "ppo": set(),
    "rl": set(),
    "transformer": set(),
    **{name: set() for name in (*OFFLINE, *JUDGED, *TAUGHT)},
}
#: of trainers that do not take the tiny Llama
MODELS = {"mamba": ModelSection(hidden_size=16, num_layers=1, vocab_size=300)}
MORE_ARGUMENTS = {
    **{name: {"bf16": False, "max_length": 64} for name in OFFLINE},
    **{
        name: {"bf16": False, "beta": 0.1, "num_generations": 2, "max_completion_length": 2}
        for name in ("grpo", "rloo")
    },
    "online_dpo": {"bf16": False, "max_new_tokens": 2, "max_length": 64},
    "gkd": {"bf16": False, "max_new_tokens": 2, "max_length": 64},
    "distillation": {"bf16": False, "max_completion_length": 2},
}


@pytest.mark.parametrize("algorithm", TRAINERS.rows)
def test_training(configured, store, parts, algorithm, monkeypatch):
    read: set[str] = set()
    asked: set[str] = set()
    fields = {field.name for field in dataclasses.fields(RAGConfig)}

    def note(self: RAGConfig, name: str) -> Any:
        if name in fields:
            asked.add(name)
        return object.__getattribute__(self, name)

    arguments = {"max_steps": 1, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2}
    for rag in ({}, {"hybrid": True}, {**store, **PROMPT}):
        for own in OWN[algorithm]:
            if algorithm in TAUGHT:
                own = {**own, "teacher_name_or_path": str(parts["teacher"])}
            parameters = TRAINER_PARAMETERS.get(algorithm).model_validate(own)
            training = TrainingSection(
                algorithm, parameters, {**arguments, **MORE_ARGUMENTS.get(algorithm, {})}
            )
            data = COLUMNS.get(algorithm, {})
            more = {"training": training, "data": data, "model": MODELS.get(algorithm)}
            context, seen = configured("train", rag, algorithm=algorithm, **more)
            trainer = TRAINERS.get(algorithm).from_run(context)
            with monkeypatch.context() as patch:
                patch.setattr(RAGConfig, "__getattribute__", note)
                trainer.train()
                trainer.evaluate()
                trainer.save(context.directory.outputs)
            assert seen - SETTINGS <= declared(context.config)
            assert told(seen) <= declared(context.config)
            read |= told(seen)
    assert read == told(declared(context.config))
    assert asked <= ANSWERING[algorithm]


def test_a_recording_section_sees_every_way_of_reading():
    """The tests above prove nothing when it misses one."""
    plain, everything = RagSection(top_k=3), {f"rag.{key}" for key in RagSection.model_fields}
    ways: list[tuple[Callable[[Any], Any], set[str]]] = [
        (lambda rag: rag.top_k, {"rag.top_k"}),
        (lambda rag: getattr(rag, "hybrid"), {"rag.hybrid"}),  # noqa: B009 - the way that is tried
        (dict, everything),
        (lambda rag: rag.model_dump(), everything),
        (lambda rag: json.loads(rag.model_dump_json()), everything),
        (lambda rag: make_retriever(rag.model_copy(update={}), device="cpu"), everything),
    ]
    for way, expected in ways:
        seen: set[str] = set()
        section = recording("rag", plain, seen)
        seen.clear()
        way(section)
        assert seen == expected
