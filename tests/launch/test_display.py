"""How the progress of workers is shown."""

import io
import sys

from trainshed.launch import display
from trainshed.launch.contract import LaunchOptions, prepare
from trainshed.launch.display import Display


def working(plan):
    for run in plan.runs:
        prepare(plan, run, LaunchOptions())
        directory = plan.directory(run.id)
        directory.start()
        directory.progress(30, 100)


def test_plain_lines(plan_of, capsys, monkeypatch):
    monkeypatch.setattr(display, "PLAIN_INTERVAL_S", 0)
    plan = plan_of(a=[], b=[])
    working(plan)
    with Display(plan) as shown:
        shown.update(plan.runs)
        assert capsys.readouterr().err == "", "what has just begun was said already"
        shown.update(plan.runs)
    assert capsys.readouterr().err == "a: 30/100\nb: 30/100\n"


def test_bars(plan_of, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(display, "_INTERVAL_S", 0)
    monkeypatch.setenv("TERM", "xterm")
    plan = plan_of(a=[], b=[])
    working(plan)
    with Display(plan) as shown:
        shown.update(plan.runs)
        shown._progress.refresh()
        assert terminal.getvalue().count("30/100") >= 2
        shown.update(plan.runs[:1])
        assert list(shown._bars) == [plan.runs[0].id]
