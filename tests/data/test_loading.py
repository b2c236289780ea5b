"""From the section ``data`` to rows: sources, splits, mixtures, columns, and what each error names."""

import datasets
import pytest

from trainshed.config.formats import ACCEPTS, accepted_formats
from trainshed.config.schema import DataSection, MixtureSource
from trainshed.data.class_order import one_class_batches
from trainshed.data.corpus import write_corpus
from trainshed.data.formats import RowFormat, prompt_key
from trainshed.data.jsonl import write_jsonl
from trainshed.data.loading import load_rows
from trainshed.data.reading import read_checked
from trainshed.errors import ConfigError, DataError


def pairs(count, start=0):
    return [
        {"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"}
        for n in range(start, start + count)
    ]


@pytest.fixture
def folder(tmp_path):
    write_jsonl(tmp_path / "data" / "train.jsonl", pairs(40))
    write_jsonl(tmp_path / "data" / "validation.jsonl", pairs(4, 40))
    return tmp_path


def test_the_splits_of_a_directory(folder):
    section = DataSection(dataset_name=str(folder / "data"), max_train_samples=10, max_eval_samples=3)
    loaded = load_rows(section, accepts=("preference",))
    assert loaded.format == RowFormat("preference")
    assert loaded.splits == {"train": pairs(10), "validation": pairs(3, 40)}
    assert loaded.places["train"][9] == f"{folder / 'data' / 'train.jsonl'}, line 10"
    assert loaded.notes == ()
    assert load_rows(section).splits == loaded.splits
    assert load_rows(section, splits=("train", "test")).rows("test") == []


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "saved", "saved with splits"])
def test_kinds_of_files(tmp_path, kind):
    rows, path = pairs(6), tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        write_jsonl(path, rows)
    elif kind == "json":
        datasets.Dataset.from_list(rows).to_json(path, lines=False)
    elif kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(path)
    else:
        datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(path)
    assert load_rows(DataSection(dataset_name=str(path))).splits == {"train": rows}


def test_fractions_are_taken_off_the_training_rows(folder):
    section = DataSection(
        dataset_name=str(folder / "data"), validation_fraction=0.1, test_fraction=0.2, max_eval_samples=3
    )
    loaded = load_rows(section, splits=("train", "validation", "test"), seed=5)
    assert {name: len(rows) for name, rows in loaded.splits.items()} == {
        "train": 28,
        "validation": 3,
        "test": 3,
    }
    found = [row["prompt"] for rows in loaded.splits.values() for row in rows]
    assert len(set(found)) == len(found)
    assert all(int(prompt[1:]) < 40 for prompt in found), "the split of that name is not mixed in"
    # another stage finds the same rows held out
    assert load_rows(section, splits=("train", "test"), seed=5).rows("test") == loaded.rows("test")
    none = DataSection(dataset_name=str(folder / "data"), validation_fraction=0)
    assert list(load_rows(none).splits) == ["train"]


def test_one_prompt_is_in_one_split_even_of_two_sources(tmp_path):
    for name in ("a", "b"):
        rows = [{**row, "chosen": f"{name} {n}"} for n in range(3) for row in pairs(20)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    mixture = [{"dataset_name": str(tmp_path / f"{name}.jsonl")} for name in ("a", "b")]
    section = DataSection(mixture=mixture, validation_fraction=0.2)
    for algorithm in ("dpo", "kto", "sft", "grpo"):
        loaded = load_rows(section, accepts=accepted_formats(algorithm))
        keys = {
            name: {prompt_key(row, loaded.format) for row in rows} for name, rows in loaded.splits.items()
        }
        assert len(keys["train"]) == 16
        assert len(keys["validation"]) == 4
        assert not keys["train"] & keys["validation"]


def test_pairs_for_kto_are_in_an_order_that_teaches(folder):
    """The trap: a paired dataset is all chosen, then all rejected, and no batch has both."""
    loaded = load_rows(DataSection(dataset_name=str(folder / "data")), accepts=("unpaired",), batch_size=4)
    assert len(loaded.rows("train")) == 80
    for split in loaded.splits:
        assert one_class_batches(loaded.rows(split), 4) == []
    assert loaded.places["train"][0].endswith(f"line {int(loaded.rows('train')[0]['prompt'][1:]) + 1}")
    assert "40 rows of preference, plain made into 80 rows of unpaired, plain" in loaded.notes[0]
    # sorted by label, as some datasets are
    rows = [{"prompt": f"q{n}", "completion": "c", "label": n < 20} for n in range(40)]
    write_jsonl(folder / "sorted.jsonl", rows)
    loaded = load_rows(DataSection(dataset_name=str(folder / "sorted.jsonl")), accepts=("unpaired",))
    assert one_class_batches(loaded.rows("train"), 8) == []
    # one bad answer in forty cannot be in each of five batches
    rows = [{"prompt": f"q{n}", "completion": "c", "label": n > 0} for n in range(40)]
    write_jsonl(folder / "rare.jsonl", rows)
    loaded = load_rows(DataSection(dataset_name=str(folder / "rare.jsonl")), accepts=("unpaired",))
    assert "4 batches of 8 rows have one class only" in loaded.notes[-1]


def test_mixtures(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", pairs(30))
    write_jsonl(tmp_path / "b.jsonl", [{"q": f"b{n}", "a": "good"} for n in range(200)])
    mixture = [
        MixtureSource(dataset_name=str(tmp_path / "a.jsonl"), weight=3),
        MixtureSource(
            dataset_name=str(tmp_path / "b.jsonl"), weight=7, columns={"prompt": "q", "completion": "a"}
        ),
    ]
    loaded = load_rows(DataSection(mixture=mixture), accepts=("prompt-completion",), seed=1)
    rows = loaded.rows("train")
    assert len(rows) == 100
    assert sum(row["prompt"].startswith("q") for row in rows) == 30
    assert [row["prompt"][0] for row in rows] != sorted(row["prompt"][0] for row in rows)
    assert any("30 of the mixture's 100 rows, of 30" in note for note in loaded.notes)
    again = DataSection(mixture=mixture, max_train_samples=500, mixture_exhausted="repeat")
    loaded = load_rows(again, accepts=("prompt-completion",), seed=1)
    assert sum(row["prompt"].startswith("q") for row in loaded.rows("train")) == 150
    assert any("each 5.0 times" in note for note in loaded.notes)
    kto = load_rows(DataSection(mixture=mixture[:1] * 2), accepts=("unpaired",), batch_size=2)
    assert len(kto.rows("train")) == 120
    assert one_class_batches(kto.rows("train"), 2) == []


def test_sources_that_do_not_go_together(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c"}])
    talk = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
    write_jsonl(tmp_path / "b.jsonl", [{"messages": talk}])
    write_jsonl(tmp_path / "c.jsonl", [{"text": "t"}])

    def of(*names):
        return DataSection(mixture=[{"dataset_name": str(tmp_path / f"{name}.jsonl")} for name in names])

    assert load_rows(of("a", "b"), accepts=("messages", "text")).format == RowFormat("messages", True)
    with pytest.raises(DataError, match="texts and conversations"):
        load_rows(of("a", "b"), accepts=("prompt-completion",))
    with pytest.raises(DataError, match="no format that is taken can be made of every source"):
        load_rows(of("a", "c"), accepts=("prompt-completion", "text"))
    with pytest.raises(DataError, match="different formats"):
        load_rows(of("a", "c"))


def test_columns_are_mapped_and_never_guessed(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"question": "q", "better": "b", "worse": "w", "prompt": "not this"}])
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    loaded = load_rows(DataSection(dataset_name=str(path), columns=columns), accepts=("preference",))
    assert loaded.rows("train") == [{"prompt": "q", "chosen": "b", "rejected": "w"}]
    with pytest.raises(DataError, match="no format that is taken here") as caught:
        load_rows(DataSection(dataset_name=str(path)), accepts=("preference",))
    assert "data.columns" in caught.value.fix
    assert caught.value.where == f"{path}, line 1"
    with pytest.raises(DataError, match="no column 'questoin'") as caught:
        load_rows(DataSection(dataset_name=str(path), columns={"prompt": "questoin"}))
    assert caught.value.fix.startswith("did you mean 'question'?")


def test_answers_as_text_to_prompts_that_are_conversations(tmp_path):
    path, ask = tmp_path / "a.jsonl", [{"role": "user", "content": "Why?"}]
    write_jsonl(path, [{"prompt": ask, "chosen": "So.", "rejected": {"role": "assistant", "content": "No."}}])
    loaded = load_rows(DataSection(dataset_name=str(path)), accepts=("preference",))
    assert loaded.format == RowFormat("preference", True)
    said = [{"role": "assistant", "content": text} for text in ("So.", "No.")]
    assert loaded.rows("train") == [{"prompt": ask, "chosen": said[:1], "rejected": said[1:]}]
    assert "each answer becomes a turn of the assistant" in loaded.notes[0]
    write_jsonl(path, [{"prompt": ask, "chosen": "So.", "rejected": ""}])
    assert load_rows(DataSection(dataset_name=str(path))).rows("train")[0]["rejected"][0]["content"] == ""
    write_jsonl(path, [{"prompt": ask, "chosen": "", "rejected": "No."}])
    with pytest.raises(DataError, match="content is empty"):
        load_rows(DataSection(dataset_name=str(path)))


def test_columns_that_are_null_are_not_there_but_judgements_are(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"prompt": "p", "completion": "c", "messages": None, "text": None}])
    accepts = ("messages", "prompt-completion", "text")
    assert load_rows(DataSection(dataset_name=str(path)), accepts=accepts).format.name == "prompt-completion"
    write_jsonl(path, [{"prompt": "p", "completion": "c", "label": None}])
    with pytest.raises(DataError, match="the label is null"):
        load_rows(DataSection(dataset_name=str(path)), accepts=accepts)
    rows = [
        {"prompt": None, "chosen": "a b", "rejected": "a c"},
        {"prompt": "p", "chosen": "d", "rejected": "e"},
    ]
    write_jsonl(path, rows)
    with pytest.raises(DataError, match="has a prompt, and the dataset's first row has none"):
        load_rows(DataSection(dataset_name=str(path)))


def test_a_wrong_row_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [*pairs(2), {"prompt": "p", "chosen": ["x"], "rejected": "y"}])
    with pytest.raises(DataError, match="a conversation, while the dataset's first row holds text") as caught:
        load_rows(DataSection(dataset_name=str(path)))
    assert caught.value.where == f"{path}, line 3, column 'chosen'"


def test_a_split_of_another_format_is_told(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", pairs(2))
    write_jsonl(tmp_path / "validation.jsonl", [{"prompt": "p", "chosen": [], "rejected": []}])
    with pytest.raises(DataError, match="the training rows are preference, plain"):
        load_rows(DataSection(dataset_name=str(tmp_path)), accepts=("preference",))


@pytest.mark.parametrize("algorithm", ACCEPTS)
def test_a_corpus_serves_every_algorithm(tmp_path, small_corpus, algorithm):
    write_corpus(small_corpus, tmp_path)
    section = DataSection(dataset_name=str(tmp_path))
    loaded = load_rows(section, accepts=accepted_formats(algorithm), splits=("train", "validation", "test"))
    assert loaded.format.name in accepted_formats(algorithm)
    assert set(loaded.splits) == {"train", "validation", "test"}
    keys = [{prompt_key(row, loaded.format) for row in rows} for rows in loaded.splits.values()]
    assert all(keys)
    assert not keys[0] & keys[1]
    assert not (keys[0] | keys[1]) & keys[2]


def test_the_builtin_corpus():
    loaded = load_rows(DataSection(dataset_name="builtin", max_passages=100), accepts=("preference",))
    assert set(loaded.splits) == {"train", "validation"}
    assert loaded.rows("train")[0].keys() == {"prompt", "chosen", "rejected"}


def test_a_column_that_some_rows_lack_is_not_lost(tmp_path):
    """`datasets` takes the columns of the first row for those of all."""
    rows = [{"prompt": "a"}, {"prompt": "b", "answer": "4"}]
    assert datasets.Dataset.from_list(rows).column_names == ["prompt"]
    write_jsonl(tmp_path / "a.jsonl", rows)
    loaded = load_rows(DataSection(dataset_name=str(tmp_path / "a.jsonl")), accepts=("prompt",))
    assert loaded.dataset("train")[1] == {"prompt": "b", "answer": "4"}


def test_an_empty_split_is_told(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", pairs(2))
    (tmp_path / "validation.jsonl").write_text("")
    with pytest.raises(DataError, match="the dataset is empty") as caught:
        load_rows(DataSection(dataset_name=str(tmp_path)))
    assert caught.value.where == f"{tmp_path}, split validation"
    with pytest.raises(DataError, match="the dataset is empty"):
        read_checked([], where="nowhere")


def test_nothing_named():
    with pytest.raises(ConfigError, match="no dataset is named"):
        load_rows(DataSection())


def test_a_split_is_read_without_the_training_rows(tmp_path):
    write_jsonl(tmp_path / "only" / "test.jsonl", [{"prompt": "a", "completion": "b"}])
    section = DataSection(dataset_name=str(tmp_path / "only"))
    loaded = load_rows(section, splits=("test",))
    assert loaded.splits == {"test": [{"prompt": "a", "completion": "b"}]}
    with pytest.raises(DataError, match="no rows in the split validation") as caught:
        load_rows(section, splits=("validation",))
    assert "data.validation_fraction" in caught.value.fix
    # one source of a mixture has the split, which is all there is of it
    write_jsonl(tmp_path / "other" / "train.jsonl", [{"prompt": "c", "completion": "d"}])
    mixture = [{"dataset_name": str(tmp_path / name)} for name in ("other", "only")]
    mixed = load_rows(DataSection(mixture=mixture), splits=("test",))
    assert mixed.splits == loaded.splits


def test_a_share_that_is_held_out_needs_the_training_rows(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"p{n}", "completion": "b"} for n in range(40)])
    section = DataSection(dataset_name=str(tmp_path / "a.jsonl"), test_fraction=0.25)
    alone = load_rows(section, splits=("test",), seed=3)
    whole = load_rows(section, splits=("train", "test"), seed=3)
    assert list(alone.splits) == ["test"]
    assert alone.rows("test") == whole.rows("test")
    assert len(alone.rows("test")) == 10


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"prompt": "p", "completion": " c"}, "c"),
        ({"prompt": "p", "completion": " c", "answer": "a"}, "a"),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "answer": "a"}, "a"),
    ],
)
def test_what_becomes_a_prompt_keeps_its_other_columns(tmp_path, row, answer):
    write_jsonl(tmp_path / "a.jsonl", [{**row, "tests": ["t"]}])
    section = DataSection(dataset_name=str(tmp_path / "a.jsonl"))
    loaded = load_rows(section, accepts=("prompt",))
    assert loaded.rows("train") == [{"prompt": "p", "answer": answer, "tests": ["t"]}]
    assert not any("left out" in note for note in loaded.notes)
    # where an answer is trained on, the rest has no use, and a line says so
    kept = load_rows(section, accepts=("preference", "prompt-completion"))
    assert "tests" not in kept.rows("train")[0]
    assert any("left out" in note and "tests" in note for note in kept.notes)
