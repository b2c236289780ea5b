"""``trainshed data inspect`` and ``trainshed data convert``."""

import json

import pytest

from trainshed.cli.main import main
from trainshed.data.jsonl import read_jsonl, write_jsonl

CONFIG = """\
execution: {algorithm: pretrain}
model: {tokenizer_name_or_path: words}
data: {dataset_name: texts.jsonl, validation_fraction: 0.2}
training: {block_size: 16, max_steps: 1}
"""
PIPELINE = """\
pipeline:
  c: {stage: corpus, data: {dataset_name: builtin}}
  t: {execution: {algorithm: pretrain}, data: {dataset_name: "${stages.c}/pretraining"}}
"""


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["data", *map(str, arguments)])
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer.save_pretrained("words")
    rows = [
        {"question": f"the cat {n}", "chosen": f" keeps {n}", "rejected": f" has word {n}"} for n in range(20)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": f"the red cat keeps the word {n}"} for n in range(20)])
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def test_a_dataset(capsys, place):
    code, out, _ = call(
        capsys,
        "inspect",
        "pairs.jsonl",
        "--algorithm",
        "dpo",
        "--tokenizer",
        "words",
        "--columns",
        "prompt=question",
    )
    assert code == 0, out
    assert "⟦the cat 0⟧ keeps 0<eos>" in out
    assert out.count("pairs.jsonl, line") == 3
    code, out, _ = call(
        capsys, "inspect", "pairs.jsonl", "--columns", "prompt=question", "--json", "--algorithm", "kto"
    )
    report = json.loads(out)
    assert (code, report["format"], report["splits"]["train"]["rows"]) == (0, "unpaired, plain", 40)
    assert report["splits"]["train"]["lengths"] == {}
    code, _, error = call(capsys, "inspect", "pairs.jsonl", "--algorithm", "grop")
    assert (code, "did you mean 'grpo'" in error) == (2, True)


def test_what_is_certainly_wrong_gives_a_code(capsys, place):
    write_jsonl(place / "same.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "c"}])
    code, out, _ = call(capsys, "inspect", "same.jsonl")
    assert code == 1
    assert "WRONG  train: pairs whose chosen and rejected answers are the same" in out
    code, _, error = call(capsys, "inspect", "pairs.jsonl", "--algorithm", "sft", "--columns", "x=y")
    assert (code, "no column 'y'" in error) == (1, True)


def test_a_configuration(capsys, place):
    code, out, _ = call(capsys, "inspect", "c.yaml", "--rows", 1)
    assert code == 0, out
    assert "text, plain" in out
    assert out.count("the red cat keeps the word") == 2
    assert "validation" in out
    code, _, error = call(capsys, "inspect", "c.yaml", "--run", "none")
    assert (code, "known: pretrain" in error) == (2, True)
    assert call(capsys, "inspect", "c.yaml", "--columns", "text=body")[0] == 2
    assert call(capsys, "inspect", "pairs.jsonl", "--run", "x")[0] == 2
    (place / "r.yaml").write_text(PIPELINE)
    code, _, error = call(capsys, "inspect", "r.yaml")
    assert (code, "made by another stage" in error) == (2, True)


def test_converting(capsys, place):
    code, out, error = call(
        capsys,
        *("convert", "pairs.jsonl", "kto", "--to", "unpaired", "--columns", "prompt=question"),
        *("--validation-fraction", "0.1", "--test-fraction", "0.1"),
    )
    assert code == 0, error
    assert out.split() == ["kto/train.jsonl", "kto/validation.jsonl", "kto/test.jsonl"]
    assert "train: 32 rows" in error
    assert {row["label"] for _, row in read_jsonl(place / "kto" / "train.jsonl")} == {True, False}
    code, _, error = call(capsys, "convert", "kto", "kto")
    assert (code, "nothing is overwritten" in error) == (2, True)
    code, _, error = call(capsys, "convert", "texts.jsonl", "t", "--to", "messages")
    assert (code, "no format that is taken" in error) == (1, True)
    assert not (place / "t").exists()


def test_converting_for_nemo(capsys, place):
    code, _, error = call(
        capsys, "convert", "pairs.jsonl", "n.jsonl", "--nemo", "--columns", "prompt=question"
    )
    assert code == 0, error
    first = next(row for _, row in read_jsonl(place / "n.jsonl"))
    assert first["context"] == [{"role": "user", "content": "the cat 0"}]
    assert [c["rank"] for c in first["completions"]] == [0, 1]
    code, _, error = call(capsys, "convert", "pairs.jsonl", "m", "--nemo", "--to", "messages")
    assert (code, "leave out --to" in error) == (2, True)


def test_wrong_use(capsys, place):
    for arguments in (("--columns", "prompt"), ("--test-fraction", "1"), ("--to", "kto")):
        assert call(capsys, "convert", "pairs.jsonl", "o", *arguments)[0] == 2
    half = ("--test-fraction", "0.5", "--validation-fraction", "0.5")
    assert "leave nothing" in call(capsys, "convert", "pairs.jsonl", "o", *half)[2]


def test_the_helps_have_examples(capsys):
    for verb in ("inspect", "convert"):
        code, out, _ = call(capsys, verb, "--help")
        assert code == 0
        assert f"  trainshed data {verb} " in out
