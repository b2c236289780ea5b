"""LSR: what learns, what must not, what the loss is, and that nothing is computed twice."""

import pytest
import torch
from transformers import TrainerCallback

from trainshed.config.trainers.lsr import LSRParameters
from trainshed.data.examples import RagExample
from trainshed.errors import ConfigError, DataError
from trainshed.models.encoders import weights_hash
from trainshed.rag.answer_logits import AnswerModel
from trainshed.rag.losses import gate_weights, kl_divergence, lm_target, retrieval_log_probs
from trainshed.rag.retriever import Retriever
from trainshed.rag.scoring import AnswerScorer
from trainshed.rag.stores.base import KnowledgeStore
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.lsr import HuggingFaceTrainerForLSR

ARGUMENTS = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_steps": 2,
}
PLAIN = {"candidates": 8, "gate": False, "lm_temperature": 1.0, "retrieval_temperature": 0.1}
GATED = {"candidates": 8, "gate_margin": 0.0, "gate_scale": 2.0, "gate_min_mass": 0.3}


@pytest.fixture
def system(make_system, copying_llama):
    return make_system(model=copying_llama)


def trainer_of(system, examples, own=PLAIN, arguments=None, **more) -> HuggingFaceTrainerForLSR:
    values = {**ARGUMENTS, **(arguments or {})}
    return HuggingFaceTrainerForLSR(system, examples, values, parameters=LSRParameters(**own), **more)


def state_of(system) -> dict[str, str | bytes]:
    embeddings = system.knowledge_store.embeddings()
    return {
        "queries": system.retriever.query_hash(),
        "passages": system.retriever.passage_hash(),
        "generator": weights_hash(system.generator.model),
        "store": embeddings.numpy().tobytes(),
        "manifest": system.knowledge_store.manifest.embedder_hash,
    }


def divergence(system, examples, own) -> float:
    """Compute KL(retriever || generator) over a question's best candidates, apart from the trainer."""
    store, total = system.knowledge_store, 0.0
    vectors = system.retriever.encode_queries([example.query for example in examples])
    found = store.search(vectors, own["candidates"])
    for example, ids, scores in zip(examples, found.ids, found.scores, strict=True):
        texts = [passage.text for passage in store.get(ids)]
        likelihood = system.generator.scorer().score([example.query], [texts], [example.response])
        log_p = retrieval_log_probs(scores.unsqueeze(0), own["retrieval_temperature"])
        log_q = lm_target(likelihood.log_likelihood, own["lm_temperature"])
        forward = own.get("direction") == "forward"
        total += float(kl_divergence(log_q, log_p) if forward else kl_divergence(log_p, log_q))
    return total / len(examples)


class GradientsOf(TrainerCallback):
    """Keeps the largest gradient of every weight that learns."""

    def __init__(self, module_of):
        self.module_of, self.largest = module_of, {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for name, weight in self.module_of().named_parameters():
            if weight.requires_grad:
                size = 0.0 if weight.grad is None else float(weight.grad.abs().max())
                self.largest[name] = max(size, self.largest.get(name, 0.0))


@pytest.mark.parametrize("both", [False, True])
def test_a_gradient_reaches_every_trainable_weight_and_all_move(system, examples, both):
    gradients = GradientsOf(lambda: trainer.module)
    own = {**PLAIN, "train_passage_encoder": both}
    trainer = trainer_of(system, examples, own, {"num_train_epochs": 1}, callbacks=[gradients])
    before = {k: v.clone() for k, v in system.retriever.query_encoder.state_dict().items()}
    trainer.train()
    named = dict(trainer.module.named_parameters())
    frozen = [name for name, weight in named.items() if not weight.requires_grad]
    assert frozen
    assert all("pooler" in name for name in frozen)
    assert len(gradients.largest) == len(named) - len(frozen) > 30
    # the bias of a key shifts all of a softmax's arguments alike, so its gradient is rounding
    silent = [n for n, size in gradients.largest.items() if size < 1e-9 and not n.endswith("key.bias")]
    assert silent == []
    after = system.retriever.query_encoder.state_dict()
    for name, weight in named.items():
        assert torch.equal(before[name], after[name]) == (not weight.requires_grad), name


def test_only_the_query_encoder_learns(system, examples):
    before, generator_mode = state_of(system), system.generator.model.training
    assert not system.retriever.is_dual
    result = trainer_of(system, examples).train()
    after = state_of(system)
    assert system.retriever.is_dual
    assert after.pop("queries") != before.pop("queries")
    assert after == before
    assert all(weight.grad is None for weight in system.generator.model.parameters())
    assert all(weight.grad is None for weight in system.retriever.passage_encoder.parameters())
    assert system.generator.model.training == generator_mode
    assert result.steps == 15


@pytest.mark.parametrize(("direction", "left", "gain"), [("forward", 0.75, 0.4), ("reverse", 0.95, None)])
def test_the_divergence_falls_and_the_right_passage_rises(system, examples, direction, left, gain):
    """Weights are random at first; towards a sharp target, the forward divergence learns faster."""
    own = {**PLAIN, "candidates": 40, "direction": direction}
    arguments = {"num_train_epochs": 16, "learning_rate": 1e-2, "warmup_steps": 5}
    trainer = trainer_of(system, examples, own, arguments, eval_dataset=examples)
    ranks, kl = trainer.evaluate(), divergence(system, examples, own)
    result = trainer.train()
    losses = [row["train/loss"] for row in result.history if "train/loss" in row]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert divergence(system, examples, own) < left * kl
    if gain is not None:
        assert trainer.evaluate()["eval/mrr@10"] > ranks["eval/mrr@10"] + gain


def test_the_loss_is_that_of_the_papers(system, examples):
    own = {**PLAIN, "candidates": 5}
    kl = divergence(system, examples[:4], own)
    arguments = {"max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 0.0}
    system.retriever.query_encoder.eval()
    for module in system.retriever.query_encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    result = trainer_of(system, examples[:4], own, arguments).train()
    assert result.loss == pytest.approx(kl, rel=1e-4)


@pytest.mark.parametrize(
    "own",
    [
        {"direction": "forward"},
        {"length_normalise": True},
        {"lm_temperature": 5.0},
        {"retrieval_temperature": 1.0},
        {"gate": True, "gate_margin": -5.0, "gate_min_mass": 0.0},
    ],
)
def test_every_parameter_decides(make_system, copying_llama, examples, own):
    losses = []
    for more in ({}, own):
        system = make_system(model=copying_llama)
        losses.append(trainer_of(system, examples[:8], {**PLAIN, **more}, {"max_steps": 1}).train().loss)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_the_gate_is_logged_and_holds_back(system, examples):
    examples = [*examples[:6], *(RagExample("which word ?", "zzz qqq", id=f"x{i}") for i in range(2))]
    rows = system.batch_retrieve([example.query for example in examples], 8)
    texts = [[candidate.passage.text for candidate in row] for row in rows]
    scores = system.generator.scorer().score(
        [e.query for e in examples], texts, [e.response for e in examples], closed_book=True
    )
    expected = gate_weights(
        scores.log_likelihood, scores.closed_book, margin=0.0, scale=2.0, min_mass=0.3, temperature=1.0
    )
    share = float((expected > 0).float().mean())
    assert 0 < share < 1
    own = {**GATED, "lm_temperature": 1.0}
    for module in system.retriever.query_encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    result = trainer_of(system, examples, own, {"max_steps": 1, "learning_rate": 0.0}).train()
    assert result.history[0]["lsr/gate_share"] == pytest.approx(share)
    assert result.history[0]["lsr/gate_weight"] == pytest.approx(float(expected.mean()), abs=1e-4)
    assert 0 <= result.history[0]["lsr/relevant_found"] <= 1


def test_a_closed_gate_teaches_nothing(system, examples):
    before = state_of(system)
    result = trainer_of(system, examples, {**GATED, "gate_margin": 1e6}, {"num_train_epochs": 1}).train()
    assert result.loss == 0.0
    assert {row["lsr/gate_share"] for row in result.history} == {0.0}
    assert state_of(system) == before


def test_without_a_gate_no_answer_is_scored_without_a_passage(system, examples, monkeypatch):
    asked = []
    original = AnswerScorer.score

    def score(self, *args, **options):
        asked.append(options["closed_book"])
        return original(self, *args, **options)

    monkeypatch.setattr(AnswerScorer, "score", score)
    result = trainer_of(system, examples, PLAIN, {"max_steps": 1}).train()
    assert asked == [False]
    assert "lsr/gate_share" not in result.history[0]


@pytest.mark.parametrize("cache", [True, False])
def test_known_pairs_are_not_scored_again(system, examples, cache, monkeypatch, tmp_path):
    """All passages are candidates, so the second epoch asks for nothing new."""
    scored = []
    original = AnswerModel.logits

    def logits(self, rows, starts):
        scored.append(len(rows))
        return original(self, rows, starts)

    monkeypatch.setattr(AnswerModel, "logits", logits)
    own = {**PLAIN, "candidates": 40, "score_cache": cache, "gate": True}
    settings = TrainerSettings(directory=tmp_path / "checkpoints", device="cpu")
    trainer = trainer_of(system, examples[:4], own, {"max_steps": 1}, settings=settings)
    trainer.train()
    first = sum(scored)
    assert first >= 4 * 41
    scored.clear()
    trainer_of(system, examples[:4], own, {"num_train_epochs": 2}, settings=settings).train()
    assert sum(scored) < 2 * 41 if cache else sum(scored) >= 2 * first - 8
    if cache:  # on disk too: another trainer knows them; another generator does not
        assert sum(scored) == 0
        with torch.no_grad():
            next(system.generator.model.parameters()).add_(1e-3)
        trainer_of(system, examples[:4], own, {"max_steps": 1}, settings=settings).train()
        assert sum(scored) >= 4 * 41


def test_training_both_sides_renews_the_store(system, examples, monkeypatch):
    calls = []
    original = KnowledgeStore.replace_embeddings

    def replace(self, embeddings, **options):
        calls.append(len(begun))
        original(self, embeddings, **options)

    begun = []

    class Count(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            begun.append(state.global_step)

    monkeypatch.setattr(KnowledgeStore, "replace_embeddings", replace)
    own = {**PLAIN, "train_passage_encoder": True, "refresh_steps": 2}
    before = state_of(system)
    trainer = trainer_of(system, examples, own, {"num_train_epochs": 1}, callbacks=[Count()])
    trainer.train()
    assert calls == [2, 4, 5]
    after = state_of(system)
    assert not system.retriever.is_dual
    assert after["generator"] == before["generator"]
    assert after["store"] != before["store"]
    assert after["manifest"] == after["passages"] != before["passages"]
    texts = [passage.text for passage in system.knowledge_store.passages()]
    fresh = system.retriever.encode_passages(texts)
    assert torch.allclose(system.knowledge_store.embeddings(), fresh, atol=1e-6)


def test_training_both_sides_of_a_dual_retriever(system, examples, tmp_path):
    system.retriever.as_dual()
    before = state_of(system)
    own = {**PLAIN, "train_passage_encoder": True, "refresh_steps": 3}
    trainer = trainer_of(system, examples, own, {"num_train_epochs": 1})
    trainer.train()
    after = state_of(system)
    assert after["queries"] != before["queries"]
    assert after["passages"] != before["passages"] == before["queries"]
    assert after["queries"] != after["passages"] == after["manifest"]
    trainer.save(tmp_path / "outputs")
    retriever = Retriever.load(tmp_path / "outputs" / "retriever")
    store = KnowledgeStore.load(
        tmp_path / "outputs" / "knowledge_store", embedder_hash=retriever.passage_hash()
    )
    assert torch.equal(store.embeddings(), system.knowledge_store.embeddings())


def test_save_and_load(system, examples, tmp_path):
    trainer = trainer_of(system, examples, arguments={"num_train_epochs": 1})
    trainer.train()
    trainer.save(tmp_path / "outputs")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["retriever"]
    loaded = Retriever.load(tmp_path / "outputs" / "retriever")
    assert loaded.is_dual
    assert loaded.query_hash() == system.retriever.query_hash()
    assert loaded.passage_hash() == system.retriever.passage_hash()


class Crash(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("killed")


@pytest.mark.parametrize("own", [GATED, {**PLAIN, "train_passage_encoder": True, "refresh_steps": 3}])
def test_interrupted_and_resumed_it_ends_the_same(make_system, copying_llama, examples, own, tmp_path):
    arguments = {"num_train_epochs": 2, "save_steps": 4}
    ends = []
    for name, crashes in (("whole", []), ("killed", [7, 9])):
        settings = TrainerSettings(directory=tmp_path / name, resume=True, device="cpu")
        for step in [*crashes, None]:
            system = make_system(model=copying_llama)
            callbacks = [] if step is None else [Crash(step)]
            trainer = trainer_of(system, examples, own, arguments, settings=settings, callbacks=callbacks)
            if step is None:
                result = trainer.train()
            else:
                with pytest.raises(OSError, match="killed"):
                    trainer.train()
        ends.append((state_of(system), result.loss, result.steps, result.history))
    assert ends[0] == ends[1]
    assert ends[0][2] == 10
    # a training that has ended is not done again
    system = make_system(model=copying_llama)
    trainer_of(system, examples, own, arguments, settings=settings, callbacks=[Crash(1)]).train()
    assert state_of(system) == ends[0][0]


@pytest.mark.parametrize("both", [False, True])
def test_no_step_changes_nothing(system, examples, both):
    before = state_of(system)
    own = {**PLAIN, "train_passage_encoder": both}
    result = trainer_of(system, examples, own, {"num_train_epochs": 0}).train()
    assert result.steps == 0
    assert state_of(system) == before


def test_a_seed_decides(make_system, copying_llama, examples):
    hashes = []
    for seed in (0, 0, 1):
        system = make_system(model=copying_llama)
        trainer_of(system, examples, arguments={"max_steps": 2}, seed=seed).train()
        hashes.append(system.retriever.query_hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_answering_passage_may_be_put_among_the_candidates(system, examples):
    own = {**PLAIN, "candidates": 2, "gold_in_candidates": True}
    result = trainer_of(system, examples, own, {"num_train_epochs": 1}).train()
    assert {row["lsr/relevant_found"] for row in result.history} == {1.0}
    result = trainer_of(system, examples, {**own, "gold_in_candidates": False}, {"max_steps": 5}).train()
    assert min(row["lsr/relevant_found"] for row in result.history) < 1.0


@pytest.mark.parametrize("kind", ["hybrid", "faiss"])
def test_other_stores(make_system, copying_llama, examples, kind):
    system = make_system(model=copying_llama, store=kind)
    before = state_of(system)
    result = trainer_of(system, examples, arguments={"max_steps": 3}).train()
    assert result.loss > 0
    assert state_of(system)["store"] == before["store"]


def test_evaluation_is_of_the_retriever(system, examples):
    trainer = trainer_of(system, examples, eval_dataset=examples)
    ranks = []
    for example in examples:
        found = [candidate.passage.id for candidate in system.retrieve(example.query, 10)]
        ranks.append(1 / (found.index(example.passage_id) + 1) if example.passage_id in found else 0.0)
    before = state_of(system)
    metrics = trainer.evaluate()
    assert metrics["eval/mrr@10"] == pytest.approx(sum(ranks) / len(ranks))
    assert metrics["eval/recall@1"] == pytest.approx(sum(rank == 1 for rank in ranks) / len(ranks))
    assert state_of(system) == before


def test_bad_input(system, examples, make_system):
    with pytest.raises(DataError, match="no dataset"):
        HuggingFaceTrainerForLSR(system).train()
    with pytest.raises(DataError, match="empty"):
        trainer_of(system, []).train()
    with pytest.raises(ConfigError, match="not a RAG system"):
        HuggingFaceTrainerForLSR(system.retriever, examples)
    unmarked = [RagExample(example.query, example.response) for example in examples]
    with pytest.raises(ConfigError, match="names its passage"):
        trainer_of(system, examples, eval_dataset=unmarked).evaluate()
    system.knowledge_store.clear()
    with pytest.raises(DataError, match="knowledge store is empty"):
        trainer_of(system, examples).train()
    small = make_system()
    small.generator.max_length = 10
    with pytest.raises(DataError, match=r"(?s)alone are \d+ tokens.*question q"):
        trainer_of(small, examples).train()
