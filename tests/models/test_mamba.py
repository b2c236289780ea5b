"""A built Mamba-2: first weights, refusals; reading it piece by piece gives what reading at once does."""

import copy
import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from trainshed.config.schema import ModelSection
from trainshed.config.trainers.mamba import Mamba2Shape
from trainshed.errors import ConfigError, MissingExtraError, ModelError
from trainshed.models.build import build_llama
from trainshed.models.causal_lm import LoraSettings, add_lora, load_causal_lm, save_causal_lm
from trainshed.models.encoders import weights_hash
from trainshed.models.mamba import MambaReader, build_mamba2, check_trainable, load_mamba, stream
from trainshed.models.tokenizers import train_byte_bpe

SHAPE = Mamba2Shape(hidden_size=32, num_layers=2, head_dim=16, state_size=8, n_groups=2, chunk_size=8)


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(["some text"], vocab_size=260)


@pytest.fixture(scope="module")
def model(tokenizer):
    made = build_mamba2(tokenizer, SHAPE, seed=1)
    # first weights hardly remember; these do, so that a state that was lost shows
    with torch.no_grad():
        for block in made.backbone.layers:
            block.mixer.in_proj.weight *= 4
            block.mixer.out_proj.weight *= 4
            block.mixer.A_log -= 2
    return made


@pytest.fixture(scope="module")
def mamba1(tokenizer):
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4, initializer_range=0.5
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MambaForCausalLM(config).eval()


def some_ids(count, rows=1, seed=0):
    return torch.randint(2, 260, (rows, count), generator=torch.Generator().manual_seed(seed))


def test_seed_decides_the_weights_and_leaves_the_global_state(tokenizer):
    before = torch.random.get_rng_state()
    one = build_mamba2(tokenizer, SHAPE, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    assert weights_hash(one) == weights_hash(build_mamba2(tokenizer, SHAPE, seed=1))
    assert weights_hash(one) != weights_hash(build_mamba2(tokenizer, SHAPE, seed=2))


def test_first_weights_are_those_of_the_paper(tokenizer):
    wide = Mamba2Shape(hidden_size=256, num_layers=4, head_dim=4, state_size=16)
    made = build_mamba2(tokenizer, wide, seed=0)
    assert made.lm_head.weight is made.backbone.embeddings.weight
    assert made.backbone.embeddings.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for block in made.backbone.layers:
        mixer = block.mixer
        assert mixer.in_proj.weight.std().item() == pytest.approx((3 * 256) ** -0.5, rel=0.05)
        assert mixer.out_proj.weight.std().item() == pytest.approx((3 * 512 * 4) ** -0.5, rel=0.05)
        assert mixer.conv1d.bias.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.1)
        decay, step = mixer.A_log.exp(), torch.nn.functional.softplus(mixer.dt_bias)
        assert 1 <= decay.min() < 2
        assert 15 < decay.max() <= 16
        assert decay.mean().item() == pytest.approx(8.5, abs=1.5)
        assert 0.001 - 1e-6 <= step.min().item() < step.max().item() <= 0.1 + 1e-6
        assert step.log().mean().item() == pytest.approx(-4.6, abs=0.4)
        assert torch.equal(mixer.D, torch.ones_like(mixer.D))


def test_it_is_saved_and_loaded_by_the_library_alone(tokenizer, model, tmp_path):
    limited = build_mamba2(tokenizer, SHAPE, max_length=512, seed=1)
    save_causal_lm(limited, tokenizer, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert weights_hash(loaded) == weights_hash(limited)
    assert loaded.config.max_position_embeddings == 512
    ids = some_ids(40)
    assert torch.equal(loaded.eval()(ids).logits, limited(ids).logits)


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_loading_scales_no_weight(kind, model, mamba1, tokenizer, tmp_path):
    """Transformers 5.23 divides the weights of a checkpoint that has this in its configuration."""
    made = copy.deepcopy(model if kind == "mamba2" else mamba1)
    made.config.rescale_prenorm_residual = True
    save_causal_lm(made, tokenizer, tmp_path)
    loaded, _ = load_causal_lm(str(tmp_path))
    assert weights_hash(loaded) == weights_hash(made)
    save_causal_lm(loaded, tokenizer, tmp_path / "again")
    assert weights_hash(AutoModelForCausalLM.from_pretrained(tmp_path / "again")) == weights_hash(made)


@pytest.mark.parametrize("pieces", [[50], [7, 43], [3, 1, 20, 8, 8, 10], [1] * 50, [48, 2], [2, 2, 46]])
def test_reading_in_pieces_gives_what_reading_at_once_does(model, pieces):
    ids = some_ids(50, rows=2)
    with torch.no_grad():
        whole = model(ids).logits
    reader, start, found = MambaReader(model), 0, []
    for size in pieces:
        found.append(reader.read(ids[:, start : start + size], keep=0))
        start += size
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-4, rtol=1e-4)


def test_what_was_read_long_ago_still_counts(model):
    """The equality above would say little about a model that remembers nothing."""
    one, other = some_ids(50), some_ids(50)
    other[0, 0] = (other[0, 0] + 1) % 260
    with torch.no_grad():
        difference = (model(one).logits - model(other).logits)[0, 20:].abs().max()
    assert difference > 1e-3


def test_the_memory_has_one_size(model):
    reader = MambaReader(model)
    assert reader.state_bytes == 0
    sizes = set()
    for length in (1, 3, 200, 64, 1):
        reader.read(some_ids(length))
        sizes.add(reader.state_bytes)
    inner, groups = SHAPE.inner_size, SHAPE.n_groups
    convolved = (inner + 2 * groups * SHAPE.state_size) * SHAPE.conv_kernel
    assert sizes == {SHAPE.num_layers * 4 * (inner * SHAPE.state_size + convolved)}


def test_streaming_gives_what_the_library_generates(model):
    prompt = some_ids(37)
    whole = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    expected = whole[0, 37:].tolist()
    for piece in (5, 64):
        assert list(stream(model, iter(prompt[0].tolist()), max_new_tokens=12, piece=piece)) == expected
    end = expected[4]
    stopped = list(stream(model, prompt[0].tolist(), max_new_tokens=12, end=end))
    assert stopped == expected[: expected.index(end) + 1]


def test_what_is_drawn_goes_by_the_seed_and_the_temperature(model):
    def drawn(seed, temperature=1.0):
        return list(stream(model, [5, 6], max_new_tokens=20, temperature=temperature, seed=seed))

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0, 1e-6) == list(stream(model, [5, 6], max_new_tokens=20))


def test_a_prompt_and_a_mamba_are_needed(tokenizer, model):
    with pytest.raises(ConfigError, match="no tokens"):
        next(stream(model, [], max_new_tokens=1))
    llama = build_llama(
        tokenizer, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, max_length=32, seed=0
    )
    with pytest.raises(ConfigError, match="a llama does not read in constant memory"):
        MambaReader(llama)
    with pytest.raises(ConfigError, match=r"is a llama, not a Mamba[\s\S]*pretrain"):
        check_trainable(llama, where="here")


def test_a_mamba_1_is_read_in_pieces_too(mamba1):
    """Its scan forgets what came before a piece of several tokens; the reader gives it single ones."""
    ids = some_ids(24)
    with torch.no_grad():
        whole = mamba1(ids).logits
    reader = MambaReader(mamba1)
    found = [reader.read(ids[:, :9], keep=0), reader.read(ids[:, 9:], keep=0)]
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-4, rtol=1e-4)
    forgets = mamba1(ids[:, 9:], cache_params=mamba1(ids[:, :9], use_cache=True).cache_params, use_cache=True)
    assert (forgets.logits - whole[:, 9:]).abs().max() > 1e-3


def test_a_mamba_1_without_its_fast_path_is_refused_with_the_reason(mamba1, tokenizer, tmp_path, monkeypatch):
    save_causal_lm(mamba1, tokenizer, tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "mambapy" else find(name, *more)
    )
    with pytest.raises(MissingExtraError, match=r"60 times as long[\s\S]*trainshed\[mamba\]"):
        load_mamba(ModelSection(model_name_or_path=str(tmp_path)))


def test_a_mamba_1_with_its_fast_path_learns_by_it(mamba1, tokenizer, tmp_path):
    pytest.importorskip("mambapy")
    save_causal_lm(mamba1, tokenizer, tmp_path)
    loaded, _ = load_mamba(ModelSection(model_name_or_path=str(tmp_path)))
    assert loaded.config.use_mambapy
    assert all(block.mixer.use_mambapy for block in loaded.backbone.layers)
    ids = some_ids(24)
    torch.testing.assert_close(loaded(ids).logits, mamba1(ids).logits, atol=1e-4, rtol=1e-4)


def test_adapters_lie_where_the_kernels_take_them(model, tokenizer, tmp_path):
    save_causal_lm(model, tokenizer, tmp_path)
    section = ModelSection(model_name_or_path=str(tmp_path), use_peft=True, lora_r=2)
    loaded, _ = load_mamba(section)
    learnt = {name for name, value in loaded.named_parameters() if value.requires_grad}
    assert len(learnt) == 2 * SHAPE.num_layers
    assert all(".in_proj.lora_" in name for name in learnt)
    with pytest.raises(ModelError, match="out_proj"):
        load_mamba(section.model_copy(update={"lora_target_modules": ["in_proj", "out_proj"]}))
    save_causal_lm(loaded, tokenizer, tmp_path / "adapters")
    again, _ = load_mamba(section.model_copy(update={"model_name_or_path": str(tmp_path / "adapters")}))
    assert weights_hash(again) == weights_hash(loaded)
    one = list(stream(again, [5, 6, 7], max_new_tokens=3))
    assert one == list(stream(model, [5, 6, 7], max_new_tokens=3))


def test_the_library_refuses_adapters_on_all_layers(model):
    """Why `lora_target_modules: [all-linear]` is read otherwise here."""
    copy = type(model)(model.config)
    with pytest.raises(ModelError, match="out_proj"):
        add_lora(copy, LoraSettings())
