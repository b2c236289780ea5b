"""Rewards over HTTP against a server in this process: batches, attempts, and what is wrong with an answer."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from trainshed.config.rewards import HTTPOptions
from trainshed.errors import ConfigError, RunError
from trainshed.rewards.endpoint import HTTPReward


@pytest.fixture
def serve():
    """Return a function that serves answers in turn, and gives the address and what was asked."""
    servers = []

    def start(*answers):
        asked = []

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked.append((json.loads(body), self.headers.get("Authorization")))
                code, answer = answers[min(len(asked), len(answers)) - 1]
                text = answer(asked[-1][0]) if callable(answer) else answer
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Answering)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/score", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def lengths(body):
    return json.dumps({"rewards": [len(text) for text in body["completions"]]})


def test_batches_and_columns(serve):
    url, asked = serve((200, lengths))
    reward = HTTPReward(HTTPOptions(url=url, batch_size=2))
    found = reward(["p"] * 3, ["a", "bb", "ccc"], answer=["x", "y", "z"], tensor=[object()] * 3)
    assert found == [1, 2, 3]
    assert [body["columns"] for body, _ in asked] == [{"answer": ["x", "y"]}, {"answer": ["z"]}]
    assert asked[0][0]["prompts"] == ["p", "p"]


def test_it_tries_again_when_that_may_help(serve, monkeypatch):
    waits = []
    monkeypatch.setattr("trainshed.rewards.endpoint.time.sleep", waits.append)
    url, asked = serve((503, ""), (429, ""), (200, lengths))
    assert HTTPReward(HTTPOptions(url=url, backoff_s=0.5))(["p"], ["abc"]) == [3]
    assert len(asked) == 3
    assert waits == [0.5, 1.0]
    url, asked = serve((500, ""))
    with pytest.raises(RunError, match="it answered 500, in 2 attempts"):
        HTTPReward(HTTPOptions(url=url, retries=1))(["p"], ["abc"])
    url, asked = serve((404, ""))
    with pytest.raises(RunError, match="it answered 404"):
        HTTPReward(HTTPOptions(url=url))(["p"], ["abc"])
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ("nothing", "is no JSON"),
        ("{}", 'no list "rewards" of 1'),
        ('{"rewards": [1, 2]}', 'no list "rewards" of 1'),
        ('{"rewards": ["good"]}', "not all numbers"),
    ],
)
def test_what_is_no_answer(serve, answer, match):
    url, _ = serve((200, answer))
    with pytest.raises(RunError, match=match):
        HTTPReward(HTTPOptions(url=url))(["p"], ["abc"])


def test_nobody_there():
    with pytest.raises(RunError, match="refused"):
        HTTPReward(HTTPOptions(url="http://127.0.0.1:9/", retries=0, timeout_s=2))(["p"], ["a"])


def test_a_token_comes_from_the_environment(serve, monkeypatch):
    url, asked = serve((200, '{"rewards": [null]}'))
    monkeypatch.setenv("SCORE_TOKEN", "abc")
    assert HTTPReward(HTTPOptions(url=url, token_variable="SCORE_TOKEN"))(["p"], ["a"]) == [None]
    assert asked[0][1] == "Bearer abc"
    monkeypatch.delenv("SCORE_TOKEN")
    with pytest.raises(ConfigError, match="SCORE_TOKEN is not set"):
        HTTPReward(HTTPOptions(url=url, token_variable="SCORE_TOKEN"))
