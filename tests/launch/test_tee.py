"""What reaches the terminal and what the log."""

import io
import sys

import pytest

from trainshed.launch.tee import Tee, output_to
from trainshed.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_both_get_everything_and_the_stream_says_what_it_is(terminal):
    stream, log = (Terminal() if terminal else io.StringIO()), io.StringIO()
    tee = Tee(stream)
    assert tee.isatty() is terminal
    with tee.logging_to(log):
        print("one", file=tee)
        print("two", end="", file=tee)
    print("three", file=tee)
    assert stream.getvalue() == "one\ntwothree\n"
    assert log.getvalue() == "one\ntwo\n"


def test_a_line_that_is_written_over_is_logged_in_its_last_form():
    log = io.StringIO()
    tee = Tee(Terminal())
    with tee.logging_to(log):
        for step in range(1000):
            tee.write(f"\rstep {step}/1000")
            assert len(tee._line) < 40
        tee.write("\n\x1b[31mred\x1b[0m\n")
    assert log.getvalue() == "step 999/1000\nred\n"


def test_a_bar_leaves_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with output_to(tmp_path / "train.log"):
        for _ in track(range(50), "embedding"):
            pass
    lines = [line for line in (tmp_path / "train.log").read_text().split("\n") if line.strip()]
    assert len(lines) == 1
    assert "embedding" in lines[0]
    assert "50/50" in lines[0]


def test_streams_are_put_back_also_after_an_error(tmp_path):
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), output_to(tmp_path / "train.log"):
        print("before the error", {}["no such key"] if print("printed") is None else "")
    assert (sys.stdout, sys.stderr) == before
    assert (tmp_path / "train.log").read_text() == "printed\n"


def test_who_keeps_the_stream_may_write_after_the_log_is_closed(tmp_path):
    with output_to(tmp_path / "train.log"):
        kept = sys.stderr
    kept.write("later\n")
    kept.flush()
    assert (tmp_path / "train.log").read_text() == ""


def test_the_log_grows(tmp_path):
    for line in ("first", "second"):
        with output_to(tmp_path / "train.log"):
            print(line)
    assert (tmp_path / "train.log").read_text() == "first\nsecond\n"
