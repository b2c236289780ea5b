"""A report as text, JSON and in colour."""

import json

import pytest

from trainshed.data.findings import Finding
from trainshed.data.report import DataReport, Example, SplitReport
from trainshed.errors import DataError

LENGTHS = {"p50": 3, "p90": 1200, "p99": 1300, "max": 1400}


def report():
    example = Example("a.jsonl, line 1", {"completion": (("two\nlines", False), ("learned", True))})
    findings = (
        Finding("double_bos", "certain", "train", 2, 10, "what", "how", ("line 1", "line 2")),
        Finding("truncated", "suspicious", "train", 1, 10, "long", "longer"),
    )
    split = SplitReport(
        10, {"prompt": LENGTHS, "answer": LENGTHS, "whole": LENGTHS}, 1, 0, 10, examples=(example,)
    )
    return DataReport("prompt-completion, plain", {"train": split}, findings, ("a note",), {"max_length": 9})


def test_text():
    lines = report().to_text().split("\n")
    assert lines[0] == "data: prompt-completion, plain"
    assert lines[1] == "  a note"
    assert lines[3].split() == ["train", "10", "prompt", "3", "1,200", "1,300", "1,400"]
    assert lines[5].split() == ["whole", "3", "1,200", "1,300", "1,400", "10.0", "%", "0.0", "%"]
    assert "    completion: ⟦two" in lines
    assert "lines⟧learned" in lines
    assert "WRONG  train: what: 2 of 10 (20 %) [double_bos]" in lines
    assert "warning  train: long: 1 of 10 (10 %) [truncated]" in lines
    assert "nothing wrong was found" in DataReport("text, plain", {"train": SplitReport(1)}).to_text()


def test_labels_and_no_tokens():
    split = SplitReport(1200, labels={"true": 1000, "false": 200})
    assert (
        "train: 1,200 rows, 1,000 good answers and 200 bad ones"
        in DataReport("f", {"train": split}).to_text()
    )


def test_colour_says_the_same_and_dims_what_is_masked():
    text = report().to_rich()
    assert text.plain == report().to_text() + "\n"
    masked = [text.plain[s.start : s.end] for s in text.spans if s.style == "dim"]
    assert "⟦two\nlines⟧" in masked


def test_json():
    assert json.loads(json.dumps(report().to_json()))["splits"]["train"]["lengths"]["whole"] == LENGTHS


def test_what_is_certain_stops():
    with pytest.raises(DataError) as caught:
        report().check()
    assert caught.value.where == "line 1; line 2"
    assert caught.value.fix == "how; or data.tolerate: [double_bos] to train on it all the same"
    report().check(tolerate=["double_bos"])
