"""Tables and JSON of scores."""

import json

import numpy as np
import pytest

from trainshed.errors import ConfigError, DataError, UnknownNameError
from trainshed.evaluation.report import comparison_rows, comparison_table, scores_json, write_report
from trainshed.evaluation.scores import Scores
from trainshed.evaluation.significance import Resampling

RNG = np.random.default_rng(0)
IDS = tuple(f"q{i}" for i in range(60))
KINDS = tuple("easy" if i % 2 else "hard|er" for i in range(60))


def scores(**columns):
    values = {name.replace("_at_", "@"): np.asarray(column, dtype=float) for name, column in columns.items()}
    return Scores(ids=IDS, values=values, kinds=KINDS)


BASE = RNG.uniform(0, 1, 60)
BEFORE = scores(mrr_at_10=BASE, f1=BASE, answer_nll=BASE + 2)
AFTER = scores(mrr_at_10=BASE + 0.1, f1=BASE - 0.1, answer_nll=BASE + 1)


def cells(table, metric):
    return dict(zip(table.header, next(row for row in table.rows if row[0] == metric), strict=True))


def test_two_systems_get_a_difference_and_a_p_value():
    table = comparison_rows("t", {"before": BEFORE, "after": AFTER}, ["mrr@10", "f1", "answer_nll"])
    assert table.header == ("metric", "before", "after", "difference", "p")
    row = cells(table, "mrr@10")
    interval = BEFORE.interval("mrr@10")
    assert row["before"] == f"{BASE.mean():.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    assert row["difference"] == "+0.100 [+0.100, +0.100] ▲"
    assert row["p"] == "<0.001"
    assert cells(table, "f1")["difference"].endswith("▼")
    assert cells(table, "answer_nll")["difference"] == "-1.000 [-1.000, -1.000] ▲"  # lower is better
    assert "lower is better: answer_nll" in table.notes


def test_no_mark_where_the_interval_holds_zero():
    noise = scores(f1=BASE + RNG.normal(0, 0.3, 60))
    row = cells(comparison_rows("", {"a": BEFORE, "b": noise}, ["f1"]), "f1")
    assert "▲" not in row["difference"]
    assert "▼" not in row["difference"]


def test_retrieval_and_generation_stand_in_one_table():
    retrieval = [Scores(IDS, {"mrr@10": BASE}), Scores(IDS, {"mrr@10": BASE + 0.1})]
    columns = {
        "generator alone": scores(f1=BASE),
        "before": [retrieval[0], scores(f1=BASE + 0.1)],
        "after": [retrieval[1], scores(f1=BASE + 0.3)],
    }
    table = comparison_rows("", columns, ["mrr@10", "f1"], against={"after": "before"})
    assert table.header == ("metric", "generator alone", "before", "after", "after − before", "p")
    assert cells(table, "mrr@10")["generator alone"] == "–"
    assert cells(table, "f1")["after − before"].startswith("+0.200")
    every = comparison_rows("", columns, ["mrr@10"])
    assert every.header.count("p") == 2
    assert every.rows[0][-4:] == ("–", "–", "–", "–")  # the first system has no such metric


def test_kinds_have_rows_of_their_own():
    table = comparison_rows("", {"before": BEFORE, "after": AFTER}, ["mrr@10", "f1"], by_kind=["f1"])
    assert [row[0] for row in table.rows] == [
        "mrr@10",
        "f1",
        "easy (n = 30)",
        "  f1",
        "hard|er (n = 30)",
        "  f1",
    ]
    easy = table.rows[3]
    assert easy[1].startswith(f"{BEFORE.mean('f1', kind='easy'):.3f}")


def test_the_styles_hold_the_same_cells():
    arguments = ("Held-out", {"before": BEFORE, "after": AFTER}, ["mrr@10"])
    cell = comparison_rows(*arguments).rows[0][2]
    drawn = {
        style: comparison_table(*arguments, by_kind=True, style=style)
        for style in ("rich", "plain", "markdown")
    }
    for text in drawn.values():
        assert "Held-out" in text
        assert cell in text
        assert "\x1b" not in text
    lines = drawn["markdown"].splitlines()
    assert lines[2].startswith("| metric | before | after |")
    assert {line.replace("\\|", "").count("|") for line in lines[2:] if line.startswith("|")} == {6}
    assert "**hard\\|er (n = 30)**" in drawn["markdown"]
    with pytest.raises(ConfigError, match="did you mean 'markdown'"):
        comparison_table(*arguments, style="markdwn")


def test_decimals_are_fixed():
    table = comparison_rows("", {"a": BEFORE}, ["f1"], decimals=1)
    assert table.header == ("metric", "a")
    assert len(table.rows[0][1].split()[0]) == 3


def test_an_undefined_metric_is_a_dash():
    empty = scores(citation_precision=np.full(60, np.nan))
    row = comparison_rows("", {"a": empty, "b": empty}, ["citation_precision"]).rows[0]
    assert [cell.strip() for cell in row[1:]] == ["–"] * 4


def test_wrong_names_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'mrr@10'"):
        comparison_rows("", {"a": BEFORE}, ["mrr@1"])
    with pytest.raises(UnknownNameError, match="'befor'"):
        comparison_rows("", {"before": BEFORE, "after": AFTER}, ["f1"], against={"after": "befor"})
    other = Scores(ids=("x",), values={"f1": np.zeros(1)})
    with pytest.raises(DataError, match="different questions"):
        comparison_rows("", {"a": BEFORE, "b": other}, ["f1"])


def test_json_has_plain_numbers_intervals_and_comparisons(tmp_path):
    report = {
        "retrieval": {"before": BEFORE, "after": AFTER},
        "alone": BEFORE,
        "notes": {"python": "3.11"},
    }
    write_report(tmp_path / "report.json", report)
    read = json.loads((tmp_path / "report.json").read_text())
    after = read["retrieval"]["after"]
    assert after["mrr@10"] == pytest.approx(BASE.mean() + 0.1)
    assert set(after["intervals"]["mrr@10"]) == {"mean", "low", "high", "n"}
    assert after["by_kind"]["easy"]["n"] == 30
    change = read["retrieval"]["comparisons"]["after - before"]
    assert change["mrr@10"]["excludes_zero"] is True
    assert change["mrr@10"]["mean"] == pytest.approx(0.1)
    assert change["by_kind"]["easy"]["f1"]["n"] == 30
    assert read["alone"]["f1"] == pytest.approx(BASE.mean())
    assert read["notes"] == {"python": "3.11"}
    assert "per_example" not in after
    assert Scores.from_json(scores_json({"a": BEFORE}, per_example=True)["a"]).to_json() == BEFORE.to_json()


def test_without_samples_there_are_no_intervals():
    none = Resampling(samples=0)
    before, after = (Scores(IDS, {"f1": values}, resampling=none) for values in (BASE, BASE + 0.5))
    row = cells(comparison_rows("t", {"before": before, "after": after}, ["f1"]), "f1")
    assert row["before"] == f"{BASE.mean():.3f}"
    assert row["difference"] == "+0.500  "
    assert row["p"] == "<0.001"
    assert json.loads(json.dumps(after.to_json()))["intervals"]["f1"]["low"] is None


def test_what_is_no_better_either_way_has_no_mark():
    before, after = scores(tokens=BASE, unfinished=BASE), scores(tokens=BASE + 1, unfinished=BASE + 1)
    table = comparison_rows("t", {"before": before, "after": after}, ["tokens", "unfinished"], unit="rows")
    assert cells(table, "tokens")["difference"] == "+1.000 [+1.000, +1.000]  "
    assert cells(table, "unfinished")["difference"].endswith("▼")
    assert table.notes[0].startswith("60 rows; in brackets")
