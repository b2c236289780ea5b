"""Scores outlive the process, a kill and a damaged file; a damaged score is not used."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainshed.errors import RunError
from trainshed.rag.score_cache import CachedScore, ScoreCache, score_key

TEXTS = st.text(max_size=12)


@given(st.tuples(TEXTS, TEXTS, st.none() | TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, st.none() | TEXTS, TEXTS))
def test_keys_are_equal_only_for_equal_texts(one, two):
    assert (score_key(*one) == score_key(*two)) is (one == two)


def test_no_passage_is_not_an_empty_one():
    assert score_key("m", "q", None, "a") != score_key("m", "q", "", "a")
    assert score_key("m", "qp", "", "a") != score_key("m", "q", "p", "a")


@pytest.mark.parametrize("on_disk", [False, True])
def test_round_trip_and_counts(on_disk, tmp_path):
    with ScoreCache(tmp_path / "deep" / "scores.sqlite" if on_disk else None) as cache:
        keys = [score_key("m", "q", str(i), "a") for i in range(1200)]
        assert cache.get(keys) == [None] * 1200
        scores = {key: CachedScore(-0.1 * i, i) for i, key in enumerate(keys)}
        cache.put(scores, scope="m")
        assert cache.get(keys[::-1]) == list(scores.values())[::-1]
        assert (cache.hits, cache.misses, len(cache)) == (1200, 1200, 1200)


def test_another_process_finds_them_exactly(tmp_path):
    path, score = tmp_path / "scores.sqlite", CachedScore(-123.45678901234567, 46)
    with ScoreCache(path) as cache:
        cache.put({b"k" * 16: score})
    with ScoreCache(path) as cache:
        assert cache.get([b"k" * 16, b"x" * 16]) == [score, None]


def test_other_scopes_can_be_dropped(tmp_path):
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        cache.put({b"old": CachedScore(-1.0, 1)}, scope="old")
        cache.put({b"new": CachedScore(-2.0, 1)}, scope="new")
        cache.forget_other_scopes("new")
        assert cache.get([b"old", b"new"]) == [None, CachedScore(-2.0, 1)]


def test_a_kill_loses_no_finished_batch(tmp_path):
    path = tmp_path / "scores.sqlite"
    program = (
        "import sys, pathlib\n"
        "from trainshed.rag.score_cache import CachedScore, ScoreCache\n"
        "cache = ScoreCache(pathlib.Path(sys.argv[1]))\n"
        "for batch in range(1_000_000):\n"
        "    cache.put({b'%d-%d' % (batch, i): CachedScore(-float(batch), i) for i in range(100)})\n"
        "    print(batch, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    finished = [int(process.stdout.readline()) for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with ScoreCache(path) as cache:
        for batch in finished:
            keys = [b"%d-%d" % (batch, i) for i in range(100)]
            assert cache.get(keys) == [CachedScore(-float(batch), i) for i in range(100)]
        assert len(cache) % 100 == 0  # whole batches only


@pytest.mark.parametrize("content", [b"not a database at all" * 100, None])
def test_a_damaged_file_is_dropped_with_a_note(content, tmp_path, capsys):
    path = tmp_path / "scores.sqlite"
    with ScoreCache(path) as cache:
        cache.put({b"%016d" % i: CachedScore(-1.0, 1) for i in range(2000)})
    if content is None:  # the middle is overwritten: the header still looks right
        data = bytearray(path.read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        path.write_bytes(data)
    else:
        path.write_bytes(content)
    with ScoreCache(path) as cache:
        assert cache.get([b"%016d" % i for i in range(2000)]) == [None] * 2000
        cache.put({b"k": CachedScore(-2.0, 3)})
    assert "damaged" in capsys.readouterr().err
    with ScoreCache(path) as cache:
        assert cache.get([b"k"]) == [CachedScore(-2.0, 3)]


def test_a_changed_byte_is_not_trusted(tmp_path):
    path = tmp_path / "scores.sqlite"
    with ScoreCache(path) as cache:
        cache.put({b"k": CachedScore(-2.0, 3)})
    with sqlite3.connect(path) as database:
        (packed,) = database.execute("SELECT score FROM scores").fetchone()
        database.execute("UPDATE scores SET score = ?", (bytes([packed[0] ^ 1]) + packed[1:],))
    database.close()
    with ScoreCache(path) as cache:
        assert cache.get([b"k"]) == [None]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "scores.sqlite").mkdir()
    with pytest.raises(RunError, match=r"scores\.sqlite"):
        ScoreCache(tmp_path / "scores.sqlite")
