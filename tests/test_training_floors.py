"""The floor in training: checked at log steps for every pair; a broken one ends the training."""

import lightning.pytorch as pl
import pytest
import torch

from deltavae.certified import Laplace
from deltavae.configuration import build_latents, model_specification
from deltavae.latents import AR1, MeanFieldPair
from deltavae.latents.base import Latents
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import (
    BrokenFloorError,
    DeltaVAEDataModule,
    DeltaVAEModule,
    LaggingInference,
    check_floor,
    read_log,
    train,
)
from every_pair import EVERY_PAIR
from runs import DECODER, ENCODER, tiny_data


def fit(folder, name="AR1", steps=7, callbacks=(), change=None, **options):
    pair = {"class_path": f"deltavae.latents.{name}"}
    latents = build_latents(pair, n=4, d=2, delta_bits=4.0)
    spec = model_specification((1, 4, 4), 5, decoder=DECODER, encoder=ENCODER, latents=latents)
    torch.manual_seed(0)
    model = instantiate(spec)
    if change is not None:
        change(model.latents)
    module = DeltaVAEModule(model, steps=steps, log_every=3, warmup_steps=1, **options)
    data = DeltaVAEDataModule(tiny_data(), steps=steps, batch_size=16)
    train(
        module,
        data,
        RunFolder(folder),
        checkpoint_minutes=0.0,
        callbacks=callbacks,
        trainer={"accelerator": "cpu"},
    )
    return model


@pytest.fixture
def checked(monkeypatch):
    """Steps, examples and parameters that were checked."""
    seen = []

    def recording(latents, params, index, step):
        seen.append((step, index.clone(), params.clone()))
        check_floor(latents, params, index, step)

    monkeypatch.setattr("deltavae.training.floors.check_floor", recording)
    return seen


def test_log_steps_check_what_the_step_saw(tmp_path, checked):
    spoken = []

    class Listen(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():
                spoken.append((batch["index"].clone(), pl_module.model.encoder(batch["x"])))

    fit(tmp_path, callbacks=[Listen()])
    assert [step for step, _, _ in checked] == [3, 6, 7]
    for step, index, params in checked:
        assert torch.equal(index, spoken[step - 1][0])
        assert torch.equal(params, spoken[step - 1][1])
    assert not checked[0][2].requires_grad


def test_measurements_of_other_callbacks_are_not_taken_for_the_step(tmp_path, checked):
    lagging = LaggingInference(tiny_data(9).train.images, inner_steps=2, check_every=1)
    fit(tmp_path, callbacks=[lagging])
    assert [len(params) for _, _, params in checked] == [16, 16, 16]


def broken(pair):
    pair.committed_rate *= 100


def test_a_broken_floor_ends_the_training_and_keeps_the_checkpoint(tmp_path):
    class Break(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                broken(pl_module.model.latents)

    with pytest.raises(BrokenFloorError) as caught:
        fit(tmp_path, callbacks=[Break()], learning_rate=1e-5)
    told = str(caught.value)
    assert told.startswith("step 6, example ")
    assert "below the committed rate δ = 277.2588722" in told  # 400 bits
    assert "of the training set: KL(q ‖ p) is " in told
    assert "AR1(n=4, alpha=[0.8" in told
    assert "please report it" in told
    assert told.endswith(f"the last good checkpoint is {tmp_path / 'checkpoints' / 'last.ckpt'}")
    assert "\n" not in told
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 5
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [3]


def test_a_rate_that_is_too_low_is_no_bound(tmp_path, monkeypatch):
    rate = AR1.rate
    monkeypatch.setattr(AR1, "rate", lambda self, q, z=None: rate(self, q, z) - 1e-2)
    with pytest.raises(BrokenFloorError, match="above the rate that training sees"):
        fit(tmp_path)


def params_of(pair, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, pair.n, pair.params_per_step, generator=generator)


@pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)
@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_every_pair_passes_and_stays_as_it_is(make, scale):
    pair = make()
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    check_floor(pair, scale * params_of(pair).bfloat16(), torch.arange(5), step=1)
    assert pair.training
    for name, value in pair.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)
def test_a_floor_too_high_by_little_is_seen_at_the_minimiser(make):
    pair = make()
    if pair.committed_rate == 0:
        pytest.skip("nothing is committed")
    if type(pair).__name__ == "LearnableAR1":
        torch.nn.init.constant_(pair.weight, -1e4)  # α at its least
    raw = torch.zeros(5, pair.n, pair.params_per_step)
    if type(pair).__name__ == "MeanFieldPair":
        raw[..., : pair.d] = (pair.certificate.mu - pair._centre) / pair.certificate.sigma
    if type(pair).__name__ == "BoundedVariance":
        raw[..., pair.d :] = -1e4  # σ → σ_max
    pair.committed_rate *= 1 + 1e-6
    with pytest.raises(BrokenFloorError, match="step 1, example 70 of the training set"):
        check_floor(pair, raw, torch.arange(70, 75), step=1)


def test_a_costly_formula_reads_a_few_examples(monkeypatch):
    pair, read = EVERY_PAIR["MeanFieldPair"](), []
    direct = type(pair).direct_rate
    monkeypatch.setattr(
        type(pair), "direct_rate", lambda self, q: read.append(len(q.mu)) or direct(self, q)
    )
    check_floor(pair, torch.zeros(9, 6, 4), torch.arange(9), step=1)
    assert read == [pair.direct_examples] == [4]


def test_a_prior_that_is_a_function_is_told_of_without_it():
    pair = MeanFieldPair.from_log_prob(Laplace().log_prob, 2, 1)
    broken(pair)
    with pytest.raises(BrokenFloorError, match=r"a bug in MeanFieldPair\(n=2, d=1\), not in"):
        check_floor(pair, torch.zeros(1, 2, 2), torch.arange(1), step=1)


def test_numbers_that_are_not_finite_are_left_to_others():
    pair = EVERY_PAIR["AR1"]()
    check_floor(pair, torch.full((2, 6, 4), torch.nan), torch.arange(2), step=1)


def test_a_pair_without_a_second_formula_is_not_checked():
    pair = EVERY_PAIR["AR1"]()
    pair.direct_rate = lambda q: Latents.direct_rate(pair, q)
    broken(pair)
    check_floor(pair, torch.zeros(2, 6, 4), torch.arange(2), step=1)
