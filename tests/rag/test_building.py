"""Building a store: order, resuming after a kill to the same bits, and shards that must not be taken."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from trainshed.data.passages import Passage
from trainshed.errors import StoreError
from trainshed.rag import building
from trainshed.rag.building import build_store
from trainshed.rag.stores.base import KnowledgeStore


class LetterEncoder:
    """Counts letters by a fixed random matrix; the batch shifts the last bits, as padding does in a model."""

    name, dimension, normalize = "letters", 16, True

    def __init__(self, version: str = "1", fail_after: int | None = None) -> None:
        self.version, self.fail_after = version, fail_after
        self.encoded: list[str] = []

    def passage_hash(self) -> str:
        return f"hash-{self.version}"

    def encode_passages(self, texts, *, batch_size, dtype=None, progress=None):
        if self.fail_after is not None and len(self.encoded) + len(texts) > self.fail_after:
            raise KeyboardInterrupt
        self.encoded += texts
        weights = torch.randn(128, 16, generator=torch.Generator().manual_seed(int(self.version)))
        rows = []
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            counts = torch.zeros(len(batch), 128)
            for row, text in enumerate(batch):
                for letter in text:
                    counts[row, ord(letter) % 128] += 1
            rows.append(torch.nn.functional.normalize(counts @ weights + 1e-6 * max(map(len, batch)), dim=1))
        return torch.cat(rows).to(dtype or torch.float32).float()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(building, "SHARD_BATCHES", 2)


def passages_of(count: int) -> list[Passage]:
    return [Passage(f"p{number}", f"text {number} " + "abc" * (number * 7 % 23)) for number in range(count)]


def test_keeps_order_and_says_what_it_is(tmp_path):
    encoder, passages = LetterEncoder(), passages_of(50)
    store = build_store(
        passages, encoder, directory=tmp_path / "store", batch_size=4, chunker={"max_tokens": 9}
    )
    assert store.ids == [passage.id for passage in passages]
    assert [len(text) for text in encoder.encoded] == sorted(len(passage.text) for passage in passages)
    for row in (0, 7, 49):
        alone = LetterEncoder().encode_passages([passages[row].text], batch_size=1)
        assert torch.allclose(store.embeddings()[row], alone[0], atol=1e-5)
    loaded = KnowledgeStore.load(
        tmp_path / "store", embedder_hash="hash-1", chunker={"max_tokens": 9}, dimension=16
    )
    assert loaded.manifest.embedder == "letters"
    assert torch.equal(loaded.embeddings(), store.embeddings())
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    in_memory = build_store(passages, LetterEncoder(), batch_size=4)
    assert torch.equal(in_memory.embeddings(), store.embeddings())


@pytest.mark.parametrize("store", ["memory", "faiss", "qdrant", "hybrid"])
def test_every_kind(tmp_path, store):
    built = build_store(
        passages_of(30), LetterEncoder(), store=store, directory=tmp_path / "store", batch_size=4
    )
    assert KnowledgeStore.load(tmp_path / "store", embedder_hash="hash-1").ids == built.ids
    assert built.name == store


def test_goes_on_after_an_interruption(tmp_path):
    passages = passages_of(50)
    whole = build_store(passages, LetterEncoder(), batch_size=4).embeddings()
    interrupted = LetterEncoder(fail_after=30)
    with pytest.raises(KeyboardInterrupt):
        build_store(passages, interrupted, directory=tmp_path / "store", batch_size=4)
    assert len(interrupted.encoded) == 24  # three shards of eight
    assert not (tmp_path / "store").exists()
    resumed = LetterEncoder()
    store = build_store(passages, resumed, directory=tmp_path / "store", batch_size=4)
    assert len(resumed.encoded) == 26
    assert not set(resumed.encoded) & set(interrupted.encoded)
    assert torch.equal(store.embeddings(), whole)
    assert not (tmp_path / "store.building").exists()


@pytest.mark.parametrize("change", ["encoder", "texts", "order", "batch_size", "dtype"])
def test_shards_of_something_else_are_not_taken(tmp_path, change):
    passages = passages_of(50)
    with pytest.raises(KeyboardInterrupt):
        build_store(passages, LetterEncoder(fail_after=30), directory=tmp_path / "store", batch_size=4)
    encoder = LetterEncoder("2" if change == "encoder" else "1")
    if change == "texts":
        passages[3] = Passage("p3", "something else")
    if change == "order":
        passages.reverse()
    options = {
        "batch_size": 5 if change == "batch_size" else 4,
        "dtype": torch.bfloat16 if change == "dtype" else None,
    }
    store = build_store(passages, encoder, directory=tmp_path / "store", **options)
    assert len(encoder.encoded) == 50
    wanted = build_store(passages, LetterEncoder(encoder.version), **options)
    assert torch.equal(store.embeddings(), wanted.embeddings())


def test_a_damaged_shard_is_encoded_again(tmp_path):
    passages = passages_of(50)
    whole = build_store(passages, LetterEncoder(), batch_size=4).embeddings()
    with pytest.raises(KeyboardInterrupt):
        build_store(passages, LetterEncoder(fail_after=40), directory=tmp_path / "store", batch_size=4)
    shards = sorted((tmp_path / "store.building").glob("shard-*"))
    assert len(shards) == 5
    shards[0].write_bytes(shards[0].read_bytes()[:100])
    content = bytearray(shards[1].read_bytes())
    content[-10] ^= 1
    shards[1].write_bytes(bytes(content))
    shards[2].write_bytes(b"")
    resumed = LetterEncoder()
    store = build_store(passages, resumed, directory=tmp_path / "store", batch_size=4)
    assert len(resumed.encoded) == 50 - 2 * 8
    assert torch.equal(store.embeddings(), whole)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from trainshed.data.passages import Passage
from trainshed.rag import building
building.SHARD_BATCHES = 2
passages = [Passage(f"p{n}", f"text {n} " + "abc" * (n * 7 % 23)) for n in range(50)]
class Encoder:
    name, dimension, normalize = "e", 8, True
    calls = 0
    def passage_hash(self):
        return "h"
    def encode_passages(self, texts, *, batch_size, dtype=None, progress=None):
        Encoder.calls += 1
        if sys.argv[2] == str(Encoder.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(len(t))) for t in texts])
building.build_store(passages, Encoder(), directory=Path(sys.argv[1]), batch_size=4)
print(Encoder.calls)
"""


def test_goes_on_after_a_kill(tmp_path):
    def build(directory: str, kill_at: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", KILLED, str(tmp_path / directory), kill_at]
        return subprocess.run(command, env={**os.environ}, capture_output=True, text=True, check=False)

    assert build("killed", "4").returncode == -signal.SIGKILL
    resumed = build("killed", "never")
    assert (resumed.returncode, resumed.stdout) == (0, "4\n"), (
        resumed.stderr
    )  # seven shards, three were there
    assert "24 of 50 were encoded before" in resumed.stderr
    assert build("whole", "never").stdout == "7\n"
    killed, whole = (
        load_file(tmp_path / name / "vectors.safetensors")["vectors"] for name in ("killed", "whole")
    )
    assert torch.equal(killed, whole)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("killed", "whole")]
    assert manifests[0] == manifests[1]


def test_refuses_what_cannot_be_built(tmp_path):
    with pytest.raises(StoreError, match="no passage to build"):
        build_store([], LetterEncoder())
    with pytest.raises(StoreError, match="'p0' stands twice"):
        build_store([*passages_of(2), *passages_of(1)], LetterEncoder())

    class Broken(LetterEncoder):
        def encode_passages(self, texts, **options):
            return (
                super()
                .encode_passages(texts, **options)
                .masked_fill(torch.eye(len(texts), 16) > 0, float("nan"))
            )

    with pytest.raises(StoreError, match=r"(?s)not finite.*passage 'p"):
        build_store(passages_of(9), Broken(), directory=tmp_path / "store", batch_size=4)
    assert not (tmp_path / "store").exists()
