"""The usage that FedRAG's documentation shows, as it stands there; only the import lines differ.

``...`` in the lists of the first snippet stands for more rows and is left out: no column can hold it.
"""

import pytest
import torch

from trainshed.errors import NotAvailableError
from trainshed.trainers.base import TrainResult

DATASET = """
from datasets import Dataset

train_dataset = Dataset.from_dict(
    {
        "query": ["a query", "another query", ...],
        "response": [
            "reponse to a query",
            "another response to another query",
            ...,
        ],
    }
)
"""

TRAINERS = """
from trainshed.trainers.lsr import HuggingFaceTrainerForLSR
from trainshed.trainers.ralt import HuggingFaceTrainerForRALT

retriever_trainer = HuggingFaceTrainerForLSR(rag_system)
generator_trainer = HuggingFaceTrainerForRALT(rag_system)
"""

MANAGER = """
from trainshed.trainers.manager import HuggingFaceRAGTrainerManager

trainer_manager = HuggingFaceRAGTrainerManager(
    mode="retriever",
    retriever_trainer=retriever_trainer,
    generator_trainer=generator_trainer,
)

# train
result = trainer_manager.train()
print(result.loss)
"""

FEDERATED = """
fl_task = trainer_manager.get_federated_task()  # (1)!
"""


def run(code: str, names: dict) -> None:
    kept = code.replace(", ...]", "]").replace("            ...,\n", "")
    exec(compile(kept, "<snippet>", "exec"), names)


@pytest.fixture
def names(make_system):
    names = {"rag_system": make_system()}
    run(DATASET, names)
    return names


def test_the_dataset_is_that_of_the_document(names):
    assert names["train_dataset"].column_names == ["query", "response"]
    assert names["train_dataset"][1]["response"] == "another response to another query"


@pytest.mark.parametrize("where", ["trainer", "manager", "train"])
def test_the_snippets_run_in_order(names, where, capsys):
    run(TRAINERS, names)
    # the document builds a dataset and does not say where it goes: it may go to any of the three
    manager = MANAGER
    if where == "trainer":
        names["retriever_trainer"].train_dataset = names["train_dataset"]
    elif where == "manager":
        manager = MANAGER.replace('mode="retriever",', 'mode="retriever", train_dataset=train_dataset,')
    else:
        manager = MANAGER.replace(".train()", ".train(train_dataset)")
    retriever = names["rag_system"].retriever.query_hash()
    run(manager, names)
    assert isinstance(names["result"], TrainResult)
    assert isinstance(names["result"].loss, float)
    assert capsys.readouterr().out.strip() == str(names["result"].loss)
    assert names["result"].steps == 3
    assert names["rag_system"].retriever.is_dual
    assert (names["rag_system"].retriever.query_hash() == retriever) == (names["result"].loss == 0)


def test_the_mode_is_changed_for_alternating_training(names):
    run(TRAINERS, names)
    run(MANAGER.replace(".train()", ".train(train_dataset)"), names)
    model = names["rag_system"].generator.model
    before = [weight.detach().clone() for weight in model.parameters()]
    names["trainer_manager"].mode = "generator"
    assert names["trainer_manager"].train().loss > 0
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    names["trainer_manager"].mode = "retriever"
    assert isinstance(names["trainer_manager"].train().loss, float)


def test_federation_raises_the_packages_own_error(names):
    run(TRAINERS, names)
    run(MANAGER.replace(".train()", ".train(train_dataset)"), names)
    with pytest.raises(NotAvailableError, match="federated training is not available"):
        run(FEDERATED, names)
