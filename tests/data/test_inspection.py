"""Every trap is found where it is, and not where it is not."""

import copy
import json

import pytest

from trainshed.data.encoding import Treatment
from trainshed.data.findings import KINDS
from trainshed.data.formats import RowFormat
from trainshed.data.inspection import check_before_training, inspect_rows
from trainshed.data.loading import TrainingRows
from trainshed.errors import DataError

PAIR = RowFormat("preference")
UNPAIRED = RowFormat("unpaired")
SFT = RowFormat("prompt-completion")


def talk(text, role):
    return [{"role": role, "content": text}]


def loaded(fmt, rows, **held_out):
    splits = {"train": rows, **held_out}
    places = {
        name: [f"{name}.jsonl, line {n}" for n in range(1, len(part) + 1)] for name, part in splits.items()
    }
    return TrainingRows(fmt, splits, places)


def found(report):
    return {finding.name: finding for finding in report.findings}


def pairs(count=30):
    # the longer answer is the chosen one half of the time
    return [
        {"prompt": f"the cat {n} ", "chosen": f"has word {n}", "rejected": f"keeps {'word' * (n % 2)} {n}"}
        for n in range(count)
    ]


def completions(count=12):
    return [{"prompt": f"the cat {n}", "completion": f" has word {n}"} for n in range(count)]


def labelled(count=32):
    return [
        {"prompt": f"the cat {n // 2}", "completion": f" word {n}", "label": n % 2 == 0} for n in range(count)
    ]


def test_good_data_has_no_findings(tokenizer):
    for fmt, rows in (
        (SFT, completions()),
        (UNPAIRED, labelled()),
        (RowFormat("text"), [{"text": "the cat"}]),
    ):
        report = inspect_rows(loaded(fmt, rows), tokenizer, Treatment(max_length=64, batch_size=8))
        assert report.findings == (), report.to_text()
        report.check()


@pytest.mark.parametrize(
    ("fmt", "rows", "name", "count", "line"),
    [
        (SFT, [*completions(), {"prompt": "p", "completion": " "}], "empty_answer", 1, 13),
        (
            UNPAIRED,
            [*labelled(), {"prompt": "p", "completion": "", "label": False}],
            "empty_bad_answer",
            1,
            33,
        ),
        (PAIR, [*pairs(), {"prompt": "p", "chosen": "c", "rejected": "c"}], "chosen_equals_rejected", 1, 31),
        (SFT, [*completions(), *completions(2)], "duplicate_rows", 2, 13),
        (
            PAIR,
            [*pairs(), {**pairs()[3], "chosen": pairs()[3]["rejected"], "rejected": pairs()[3]["chosen"]}],
            "contradicting_labels",
            2,
            31,
        ),
        (UNPAIRED, [*labelled(), {**labelled()[4], "label": False}], "contradicting_labels", 1, 33),
        (PAIR, [{**row, "chosen": row["chosen"] * 9} for row in pairs()], "length_bias", 30, 1),
    ],
)
def test_what_texts_tell(fmt, rows, name, count, line):
    findings = found(inspect_rows(loaded(fmt, rows)))
    assert set(findings) == {name}
    finding = findings[name]
    assert (finding.count, finding.places[0]) == (count, f"train.jsonl, line {line}")
    assert finding.level == KINDS[name].level


def test_a_mixture_that_repeats_a_source_has_no_duplicates():
    rows = completions(3)
    repeated = TrainingRows(SFT, {"train": rows * 2}, {"train": ["a", "b", "c"] * 2})
    assert inspect_rows(repeated).findings == ()


def test_held_out_prompts_that_are_trained_on():
    report = inspect_rows(loaded(SFT, completions(12), validation=completions(14)[10:]))
    (finding,) = report.findings
    assert (finding.name, finding.split, finding.count, finding.total) == (
        "overlap_with_train",
        "validation",
        2,
        4,
    )


def test_labels():
    one = [{**row, "label": True} for row in labelled()]
    assert found(inspect_rows(loaded(UNPAIRED, one)))["one_class"].level == "certain"
    rare = [{**row, "label": n % 8 > 0} for n, row in enumerate(labelled())]
    finding = found(inspect_rows(loaded(UNPAIRED, rare)))["label_imbalance"]
    assert (finding.count, finding.total) == (4, 32)


def test_batches_of_one_class(tokenizer):
    """What trl makes of a paired dataset stops the run, unless rows are shuffled anyway."""
    rows = sorted(labelled(), key=lambda row: not row["label"])
    finding = found(inspect_rows(loaded(UNPAIRED, rows), tokenizer, Treatment(batch_size=8)))[
        "one_class_batches"
    ]
    assert (finding.count, finding.total, finding.level) == (4, 4, "certain")
    assert finding.places[0] == "rows 1 to 8"
    assert inspect_rows(loaded(UNPAIRED, rows), tokenizer, Treatment()).findings == ()


def test_double_beginnings(with_bos):
    """Texts that were written by a chat template begin with the token that the tokenizer adds."""
    rows = [{"text": "<s> a b"}, {"text": "a b"}]
    finding = found(inspect_rows(loaded(RowFormat("text"), rows), with_bos))["double_bos"]
    assert (finding.count, finding.level, finding.places) == (1, "certain", ("train.jsonl, line 1",))
    pair = [{"prompt": "<s> a", "completion": " b"}]
    assert "double_bos" in found(inspect_rows(loaded(SFT, pair), with_bos))
    assert "double_bos" in found(inspect_rows(loaded(RowFormat("prompt"), [{"prompt": "<s> a"}]), with_bos))


def test_unknown_tokens(with_bos):
    report = inspect_rows(loaded(RowFormat("text"), [{"text": "a b q"}]), with_bos)
    assert (found(report)["unknown_tokens"].count, found(report)["unknown_tokens"].total) == (1, 5)


def conversations(template, tokenizer, rows=3):
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    row = {"prompt": talk("the cat", "user"), "completion": talk("has word", "assistant")}
    rows = [{**row, "prompt": talk(f"the cat {n}", "user")} for n in range(rows)]
    return found(inspect_rows(loaded(RowFormat("prompt-completion", True), rows), made))


def test_ends(tokenizer, chat_template):
    assert conversations(chat_template, tokenizer) == {}
    endless = chat_template.replace("<eos>", "")
    assert conversations(endless, tokenizer)["missing_eos"].count == 3
    twice = chat_template.replace("{{ m['content'] }}<eos>{% endgen", "{{ m['content'] }}<eos><eos>{% endgen")
    twice = twice.replace("\n{% endfor", "{% endfor")
    assert conversations(twice, tokenizer)["double_eos"].count == 3
    without = copy.deepcopy(tokenizer)
    without.eos_token = None
    report = inspect_rows(loaded(SFT, completions()), without)
    assert found(report)["no_eos_token"].level == "certain"


def test_a_prompt_that_the_template_writes_otherwise(tokenizer, chat_template):
    other = chat_template.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
    assert conversations(other, tokenizer)["prompt_no_prefix"].count == 3
    merged = [{"prompt": "the wor", "completion": "d ka"}]
    assert "prompt_no_prefix" in found(inspect_rows(loaded(SFT, merged), tokenizer))


def test_answers_beyond_the_length(tokenizer):
    rows = [*completions(), {"prompt": "the" + " cat" * 60, "completion": " has word"}]
    findings = found(inspect_rows(loaded(SFT, rows), tokenizer, Treatment(max_length=40)))
    assert set(findings) == {"truncated", "answer_cut"}
    assert findings["answer_cut"].level == "suspicious"
    assert findings["answer_cut"].places == ("train.jsonl, line 13",)
    kept = found(inspect_rows(loaded(SFT, rows), tokenizer, Treatment(max_length=40, overlong="keep_end")))
    assert set(kept) == {"truncated"}
    report = inspect_rows(loaded(SFT, rows), tokenizer, Treatment(max_length=3))
    assert found(report)["answer_cut"].level == "certain"
    with pytest.raises(DataError, match="answer_cut") as caught:
        report.check()
    assert caught.value.where.startswith("train.jsonl, line 1;")
    assert "data.tolerate: [answer_cut]" in caught.value.fix
    report.check(tolerate=["answer_cut"])


def test_rows_without_any_loss(tokenizer, chat_template):
    """A chat template without marks leaves nothing to learn when the loss is on the assistant's turns."""
    made = copy.deepcopy(tokenizer)
    made.chat_template = chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    rows = [{"messages": [*talk("the cat", "user"), *talk("has word", "assistant")]}]
    fmt = RowFormat("messages", True)
    report = inspect_rows(loaded(fmt, rows), made, Treatment(assistant_only=True))
    assert found(report)["all_masked"].level == "certain"
    made.chat_template = chat_template
    assert inspect_rows(loaded(fmt, rows), made, Treatment(assistant_only=True)).findings == ()


def test_what_the_model_sees(tokenizer):
    rows = [{"prompt": "the red cat", "completion": " has the word"}]
    report = inspect_rows(loaded(SFT, rows), tokenizer)
    (example,) = report.splits["train"].examples
    assert example.sequences == {"completion": (("the red cat", False), (" has the word<eos>", True))}
    assert "    completion: ⟦the red cat⟧ has the word<eos>" in report.to_text().split("\n")
    everything = inspect_rows(loaded(SFT, rows), tokenizer, Treatment(completion_only=False))
    assert everything.splits["train"].examples[0].sequences == {
        "completion": (("the red cat has the word<eos>", True),)
    }
    short = inspect_rows(loaded(SFT, rows), tokenizer, Treatment(max_length=4))
    whole = len(tokenizer("the red cat has the word<eos>")["input_ids"])
    assert short.splits["train"].examples[0].left_out == {"completion": whole - 4}
    assert f"… {whole - 4} tokens cut" in short.to_text()


def test_lengths_are_counted_by_hand(with_bos):
    rows = [{"prompt": "a " * n, "completion": "b"} for n in range(1, 101)]
    report = inspect_rows(loaded(SFT, rows), with_bos, Treatment(append_eos=False, max_length=52))
    split = report.splits["train"]
    assert split.lengths["prompt"] == {"p50": 51, "p90": 91, "p99": 100, "max": 101}
    assert split.lengths["answer"] == {"p50": 1, "p90": 1, "p99": 1, "max": 1}
    assert split.lengths["whole"] == {"p50": 52, "p90": 92, "p99": 101, "max": 102}
    assert (split.truncated, split.cut, split.sequences) == (50, 50, 100)


def test_before_training_it_is_printed_written_and_stops(tmp_path, capsys, tokenizer):
    rows = [*pairs(), {"prompt": "p", "chosen": "c", "rejected": "c"}]
    with pytest.raises(DataError, match="chosen_equals_rejected") as caught:
        check_before_training(loaded(PAIR, rows), tokenizer, Treatment(), directory=tmp_path)
    assert caught.value.where == "train.jsonl, line 31"
    told = capsys.readouterr().err
    assert "WRONG  train: pairs whose chosen and rejected answers are the same: 1 of 31" in told
    written = json.loads((tmp_path / "data_report.json").read_text())
    assert written["findings"][0]["name"] == "chosen_equals_rejected"
    assert written["splits"]["train"]["rows"] == 31
    check_before_training(
        loaded(PAIR, rows), tokenizer, Treatment(), tolerate=["chosen_equals_rejected"], directory=tmp_path
    )
