"""The tables of third-party arguments against the classes themselves."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
from pydantic import ValidationError

from trainshed.config import arguments
from trainshed.config.arguments import SETTING_ARGUMENTS, ArgumentField, load_table
from trainshed.config.fields import CHECKPOINT_ARGUMENTS, all_trainer_parameters
from trainshed.config.parameters import COMPUTED_ARGUMENTS, TrainerParameters

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_tables.py"
TABLE = "transformers.TrainingArguments"
TABLES = sorted(path.stem for path in (Path(arguments.__file__).parent / "tables").glob("*.json"))


def generator():
    spec = importlib.util.spec_from_file_location("generate_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", TABLES)
def test_the_table_is_the_class(table, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    rows = generator().fields_of(table)
    made = {
        name: ArgumentField(**{**row, "choices": tuple(row.get("choices", ()))}) for name, row in rows.items()
    }
    assert made == dict(load_table(table).fields), f"run python {SCRIPT.name}"


def test_every_table_belongs_to_an_algorithm_and_is_written_by_the_script():
    used = {parameters.arguments_table for parameters in all_trainer_parameters().values()}
    assert used - {None} == set(TABLES) == set(generator().CLASSES)


def test_every_field_of_the_class_is_there_or_has_a_reason_not_to_be():
    from transformers import TrainingArguments

    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    fields = set(load_table(TABLE).fields)
    assert names - fields <= set(COMPUTED_ARGUMENTS)
    assert set(COMPUTED_ARGUMENTS) - names == {"logging_dir"}
    assert set().union(*(load_table(table).fields for table in TABLES)) >= SETTING_ARGUMENTS
    assert fields - SETTING_ARGUMENTS >= CHECKPOINT_ARGUMENTS


@pytest.mark.parametrize("table", TABLES)
def test_every_default_fits_its_type(table):
    model = load_table(table).model()
    for name, field in load_table(table).fields.items():
        if field.default is not None and field.default != "":
            assert getattr(model.model_validate({name: field.default}), name) == field.default
        assert field.help, name


def test_the_class_takes_what_the_table_takes(tmp_path):
    """Values of every type, given to the class itself."""
    from transformers import TrainingArguments

    model = load_table(TABLE).model()
    values = model.model_validate(
        {
            "learning_rate": "5e-6",
            "num_train_epochs": 2,
            "warmup_steps": 0.1,
            "eval_strategy": "steps",
            "eval_steps": 5,
            "lr_scheduler_type": "cosine_with_restarts",
            "lr_scheduler_kwargs": {"num_cycles": 2},
            "optim_target_modules": ["q", "v"],
            "include_for_metrics": ["loss"],
            "save_total_limit": None,
            "accelerator_config": {"split_batches": False},
            "debug": ["underflow_overflow"],
            "include_num_input_tokens_seen": True,
        }
    ).model_dump(exclude_unset=True)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)
    assert arguments.learning_rate == 5e-6
    assert arguments.get_warmup_steps(100) == 10
    assert model.model_validate({"fsdp": True}).fsdp is True


@pytest.mark.parametrize(
    "values", [{"eval_strategy": "sometimes"}, {"max_steps": 1.5}, {"no_such": 1}, {"learning_rate": None}]
)
def test_what_does_not_fit(values):
    with pytest.raises(ValidationError):
        load_table(TABLE).model().model_validate(values)


def test_split_parts_own_parameters_from_arguments():
    parameters = all_trainer_parameters()["lsr"]
    own, arguments = parameters.split({"candidates": 3, "learning_rate": 1e-3, "save_total_limit": None})
    assert own.candidates == 3
    assert arguments == {"logging_steps": 10.0, "save_total_limit": None, "learning_rate": 1e-3}
    with pytest.raises(ValidationError, match="no_such"):
        parameters.split({"no_such": 1})


def test_parameters_without_a_third_party_class():
    class Alone(TrainerParameters):
        """Parameters of an algorithm with a loop of its own."""

        arguments_table = None
        argument_defaults = {}  # noqa: RUF012

        steps: int = 1
        """How many."""

    assert Alone.known_keys() == {"steps": "How many."}
    own, arguments = Alone.split({"steps": 2})
    assert (own.steps, arguments) == (2, {})


@pytest.mark.parametrize("name", all_trainer_parameters())
def test_own_parameters_hide_no_argument(name):
    parameters = all_trainer_parameters()[name]
    assert not set(parameters.model_fields) & set(parameters.table().fields)
    assert set(parameters.argument_defaults) <= set(parameters.table().fields)
    assert not set(parameters.argument_defaults) & set(parameters.hidden_arguments)
    assert parameters.__name__.endswith("Parameters")
    demanded = {"rewards": ["exact_match"], "teacher_name_or_path": "models/teacher"}
    parameters.split({key: value for key, value in demanded.items() if key in parameters.model_fields})
