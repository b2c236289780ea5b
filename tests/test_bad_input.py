"""Bad input, from the command line: one clear error, a code that is not 0, nothing lost that was complete.

An error says what is wrong, where, and what would be right. The parts' own tests show more of each.
"""

import errno
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from trainshed.cli.main import main
from trainshed.data.jsonl import jsonl_text
from trainshed.rag.building import build_store
from trainshed.rag.generator import Generator
from trainshed.rag.retriever import Retriever
from trainshed.trainers import checkpoints

CONFIG = """\
execution: {algorithm: ALGORITHM, device: cpu}
model: {model_name_or_path: generator}
data: {dataset_name: train.jsonl}
rag: {retriever: retriever, knowledge_store: store, max_length: 64, generator_dtype: float32}
training: {max_steps: 2, per_device_train_batch_size: 4, save_steps: 1}
"""
INDEX = "pipeline: {index: {stage: index, data: {documents: passages.jsonl}, rag: {retriever: encoder}}}\n"
TWO_STAGES = """\
pipeline:
  first: {execution: {algorithm: ralt}, model: {model_name_or_path: generator}}
  second: {execution: {algorithm: ralt}, model: {model_name_or_path: "${stages.first}"}}
  report:
    stage: evaluate
    model: {model_name_or_path: "${stages.second}"}
    evaluation: {split: train, bootstrap_samples: 20}
"""


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory, encoder_directory, other_encoder_directory, random_llama, tokenizer, passages, examples
):
    """Write a generator, a retriever, a store and questions, and train once on them."""
    root = tmp_path_factory.mktemp("parts")
    Generator(random_llama, tokenizer).save(root / "generator")
    retriever = Retriever.from_names(str(encoder_directory))
    retriever.save(root / "retriever")
    Retriever.from_names(str(other_encoder_directory)).save(root / "other")
    build_store(passages, retriever, directory=root / "store")
    (root / "train.jsonl").write_text(jsonl_text([e.to_json() for e in examples]))
    for algorithm in ("ralt", "lsr"):
        (root / f"{algorithm}.yaml").write_text(CONFIG.replace("ALGORITHM", algorithm))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert call("run", "ralt.yaml") == 0
    return root


@pytest.fixture
def project(parts, tmp_path, monkeypatch):
    """A copy of these, so that a test may spoil it."""
    shutil.copytree(parts, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


def contents(directory) -> dict[Path, str]:
    """Digests of every file of every run that is complete."""
    runs = [path.parent for path in directory.glob("*/status.json") if '"done"' in path.read_text()]
    return {name: digest for run in runs for name, digest in digests(run).items()}


def digests(directory) -> dict[Path, str]:
    files = [file for file in sorted(directory.rglob("*")) if file.is_file()]
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def write_rows(path, *rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def no_file(project):
    return ["data.dataset_name=trian.jsonl"]


def an_empty_dataset(project):
    (project / "train.jsonl").write_text("")
    return []


def a_wrong_column(project):
    write_rows(project / "train.jsonl", {"question": "which word ?", "response": "kabor"})
    return []


def a_wrong_value(project):
    write_rows(
        project / "train.jsonl",
        {"query": "which word ?", "response": "kabor"},
        {"query": "which word ?", "response": 3.5},
    )
    return []


def a_question_that_does_not_fit(project):
    row = {"id": "q7", "query": "which word ? " * 60, "response": "kabor"}
    write_rows(project / "train.jsonl", row)
    return []


def an_unknown_key(project):
    for path in project.glob("*.yaml"):
        path.write_text(path.read_text().replace("save_steps", "save_stps"))
    return []


def another_embedder(project):
    return ["rag.retriever=other"]


def a_cut_model(project):
    weights = project / "generator" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return []


def a_cut_encoder(project):
    weights = next((project / "retriever").rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    return []


def a_flipped_bit_in_the_store(project):
    vectors = next((project / "store").glob("*.safetensors"))
    content = bytearray(vectors.read_bytes())
    content[-3] ^= 1
    vectors.write_bytes(content)
    return []


def a_context_beyond_the_model(project):
    return ["rag.max_length=4096"]


FAULTS = [
    (no_file, 2, "no such file", r"ralt\.yaml|data\.dataset_name", "train.jsonl"),
    (an_empty_dataset, 1, "empty|no row|no example", r"train\.jsonl", ""),
    (a_wrong_column, 1, "query", r"train\.jsonl", "question"),
    (a_wrong_value, 1, "response", r"train\.jsonl, line 2|row 2", ""),
    (
        a_question_that_does_not_fit,
        1,
        r"alone are \d+ tokens.*max_length = 64",
        "question q7",
        r"at least \d+",
    ),
    (an_unknown_key, 2, "unknown key 'save_stps'", r"ralt\.yaml:5", "save_steps"),
    (another_embedder, 1, "embedder", "store", "[Bb]uild"),
    (a_cut_model, 1, "weights|damaged|cut|incomplete", r"generator/model\.safetensors", ""),
    (a_cut_encoder, 1, "weights|damaged|cut|incomplete", r"model\.safetensors", ""),
    (a_flipped_bit_in_the_store, 1, "damaged|digest|changed|not what", "store", "[Bb]uild"),
    (a_context_beyond_the_model, 1, "the model reads 128", r"rag\.max_length", "at most 128"),
]


@pytest.mark.parametrize("algorithm", ["ralt", "lsr"])
@pytest.mark.parametrize(
    ("fault", "code", "what", "where", "fix"), FAULTS, ids=[f[0].__name__ for f in FAULTS]
)
def test_one_clear_error(project, capsys, algorithm, fault, code, what, where, fix):
    before = contents(project / "outputs" / "ralt")
    assert before
    overrides = fault(project)
    capsys.readouterr()
    found = call("run", f"{algorithm}.yaml", *overrides)
    error = capsys.readouterr().err
    assert found in (code, 2)
    assert re.search(what, error), error
    assert re.search(where.replace("ralt", algorithm), error), error
    assert re.search(fix, error), error
    assert re.search(r"^  fix: +\S", error, re.M), error
    assert len(re.findall(r"^  where:", error, re.M)) == 1, error
    assert "Traceback" not in error
    after = contents(project / "outputs" / "ralt")
    assert {name: after.get(name) for name in before} == before


def test_a_long_passage_is_cut_and_counted(project, capsys, encoder_directory):
    shutil.copytree(encoder_directory, project / "encoder")
    (project / "index.yaml").write_text(INDEX)
    long = {"id": "long", "text": "the red cat keeps the word kabor " * 20}
    write_rows(project / "passages.jsonl", {"id": "short", "text": "the red cat"}, long)
    capsys.readouterr()
    assert call("run", "index.yaml") == 0
    assert "1 of 2 passages are longer than 32 tokens and are cut" in "".join(capsys.readouterr())
    (status,) = (project / "outputs" / "index").glob("index-*/status.json")
    assert json.loads(status.read_text())["metrics"]["index/truncated"] == 1.0
    write_rows(
        project / "passages.jsonl", {"id": "short", "text": "the red cat"}, {"id": "short", "text": "dog"}
    )
    assert call("run", "index.yaml") != 0
    assert re.search("'short'.*", capsys.readouterr().err)


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(project, capsys, monkeypatch):
    before = contents(project / "outputs" / "ralt")
    real, calls = checkpoints.sync_tree, []

    def full(path):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(checkpoints, "sync_tree", full)
    assert call("run", "ralt.yaml", "execution.seed=9") == 1
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert "Traceback" not in error
    after = contents(project / "outputs" / "ralt")
    assert {name: after.get(name) for name in before} == before
    assert len(calls) == 2
    partial = list((project / "outputs" / "ralt").rglob("*.partial"))
    assert partial == []
    monkeypatch.setattr(checkpoints, "sync_tree", real)
    assert call("run", "ralt.yaml", "execution.seed=9") == 0
    assert "interrupted" not in capsys.readouterr().err


def stopped_after(monkeypatch, checkpoint) -> None:
    """Let writing a training's next checkpoint but ``checkpoint`` ones fail."""
    real, calls = checkpoints.sync_tree, []

    def fail(path):
        calls.append(path)
        if len(calls) > checkpoint:
            raise OSError(errno.EIO, "input/output error")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync_tree", fail)
        assert call("run", "ralt.yaml", *THREE_STEPS) == 1


THREE_STEPS = ("execution.seed=9", "training.max_steps=3")


def flip(file) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)


def not_done(project):
    (run,) = (
        path.parent for path in project.glob("outputs/*/*/status.json") if '"done"' not in path.read_text()
    )
    return run


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_taken(project, capsys, monkeypatch):
    stopped_after(monkeypatch, 2)
    newest = not_done(project) / "checkpoints" / "checkpoint-2"
    flip(newest / "model.safetensors")
    capsys.readouterr()
    assert call("run", "ralt.yaml", *THREE_STEPS) == 0
    told = "".join(capsys.readouterr())
    assert f"checkpoint-2 is not usable and is removed: model.safetensors is damaged ({newest})" in told
    assert "going on from step 1 " in told


def test_when_all_checkpoints_are_damaged_a_run_ends_and_deletes_nothing(project, capsys, monkeypatch):
    done = contents(project / "outputs" / "ralt")
    stopped_after(monkeypatch, 2)
    run = not_done(project)
    for weights in run.glob("checkpoints/*/model.safetensors"):
        flip(weights)
    before = digests(run / "checkpoints")
    assert len({name.parent for name in before}) == 2
    for _ in range(2):
        capsys.readouterr()
        assert call("run", "ralt.yaml", *THREE_STEPS) == 1
        error = capsys.readouterr().err
        assert "checkpoint-2: model.safetensors is damaged; checkpoint-1: model" in error
        assert re.search(rf"^  where: +{run / 'checkpoints'}$", error, re.M), error
        assert re.search("^  fix: +delete .*--force", error, re.M), error
        assert "Traceback" not in error
        assert digests(run / "checkpoints") == before
    assert contents(project / "outputs" / "ralt") == done
    assert call("run", "ralt.yaml", *THREE_STEPS, "--force", "ralt") == 0
    assert "going on from" not in capsys.readouterr().err


def test_a_cut_model_of_a_finished_stage_is_not_gone_on_with(project, capsys):
    """Its stage is run again with the plan; what loads it without that ends with an error."""
    shared = "".join(CONFIG.splitlines(keepends=True)[2:])
    (project / "two.yaml").write_text(f"execution: {{device: cpu}}\n{shared}{TWO_STAGES}")
    assert call("run", "two.yaml") == 0
    outputs = project / "outputs" / "two"
    (weights,) = outputs.glob("second-*/outputs/model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    (report,) = outputs.glob("report-*")
    before = {**digests(report / "outputs"), **digests(weights.parent)}
    for arguments in (
        ("ask", str(outputs), "which word ?"),
        ("evaluate", str(outputs), "--data", "train.jsonl"),
        ("run", "ralt.yaml", f"model.model_name_or_path={weights.parent}"),
    ):
        capsys.readouterr()
        assert call(*arguments) == 1
        error = capsys.readouterr().err
        assert "the weights file is damaged" in error
        assert re.search(rf"^  where: +{weights}$", error, re.M), error
        assert re.search(r"^  fix: +\S", error, re.M), error
        assert "Traceback" not in error
    assert {**digests(report / "outputs"), **digests(weights.parent)} == before
    assert call("run", "two.yaml") == 0
    assert "outputs/model.safetensors is damaged" in capsys.readouterr().out
    assert weights.read_bytes() == whole
