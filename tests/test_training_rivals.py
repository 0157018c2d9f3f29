"""Rivals in training: what lagging inference moves, when it ends; state that resumes exactly."""

import lightning.pytorch as pl
import pytest
import torch

from deltavae.configuration import model_specification
from deltavae.data import load_data
from deltavae.evaluation import encode_images, mutual_information
from deltavae.latents import Standard
from deltavae.objectives import ControlVAE
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import (
    DeltaVAEDataModule,
    DeltaVAEModule,
    LaggingInference,
    read_log,
    refit_moments,
    train,
)
from deltavae.units import nats_to_bits
from runs import DECODER, ENCODER, tiny_data, tiny_specification

IMAGES = tiny_data().train.images


def fit(folder, steps=12, latents="LearnedPrior", objective=None, dataset=None, **options):
    torch.manual_seed(0)
    spec = options.pop("spec", None)
    if spec is None:
        delta_bits = 4.0 if latents in ("AR1", "BatchNorm") else None
        spec = tiny_specification(latents, delta_bits=delta_bits)
    model = instantiate(spec)
    names = ("resume", "callbacks", "checkpoint_minutes", "val_every")
    training = {name: options.pop(name) for name in names if name in options}
    batch_size = options.pop("batch_size", 16)
    options = {"log_every": 5, "warmup_steps": 3, **options}
    module = DeltaVAEModule(model, objective, steps=steps, **options)
    data = DeltaVAEDataModule(dataset or tiny_data(), steps=steps, batch_size=batch_size)
    train(module, data, RunFolder(folder), trainer={"accelerator": "cpu"}, **training)
    return model


class Watch(pl.Callback):
    """Which parts each step changed, as a set of names."""

    def __init__(self):
        self.moved = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = self.copy(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        after = self.copy(pl_module)
        changed = {n for n, value in after.items() if not torch.equal(value, self.before[n])}
        self.moved.append({name.partition(".")[0] for name in changed})

    @staticmethod
    def copy(pl_module):
        return {n: p.detach().clone() for n, p in pl_module.model.named_parameters()}


INNER, OUTER = {"encoder", "aux_prior"}, {"decoder", "latents", "aux_prior"}


def test_inner_steps_move_the_encoder_outer_steps_the_rest_and_later_all(tmp_path):
    """The same bits but for what moves; K = 2, and the phase ends at its second check."""
    watch, lagging = Watch(), LaggingInference(IMAGES, inner_steps=2, check_every=4)
    estimates = iter([0.3, 0.2])
    lagging.information = lambda model: next(estimates)
    fit(tmp_path, callbacks=[lagging, watch], weight_decay=0.1)
    cycle = [INNER, INNER, OUTER]
    assert watch.moved == [*cycle, *cycle, *cycle[:2], *[INNER | OUTER] * 4]
    assert not lagging.active
    rows = {row["step"]: row for row in read_log(tmp_path / "log.csv")}
    column = {step: row.get("lagging_information_bits") for step, row in rows.items()}
    assert column == {
        4: pytest.approx(nats_to_bits(0.3)),
        5: None,
        8: pytest.approx(nats_to_bits(0.2)),
        10: None,
        12: None,
    }


def test_a_stationary_model_ends_the_phase_and_a_rising_one_does_not(tmp_path):
    """Weights that do not move: the second check finds what the first one found."""
    lagging = LaggingInference(IMAGES, inner_steps=3, check_every=2)
    fit(tmp_path, callbacks=[lagging], learning_rate=1e-30, weight_decay=0.0)
    assert not lagging.active
    logged = [r for r in read_log(tmp_path / "log.csv") if "lagging_information_bits" in r]
    assert [row["step"] for row in logged] == [2, 4]
    assert logged[0]["lagging_information_bits"] == logged[1]["lagging_information_bits"]
    patient = LaggingInference(IMAGES, patience=3)
    for information, active in zip(
        (1.0, 0.9, 1.0, 1.1, 1.1, 1.0, 1.05), (True,) * 6 + (False,), strict=True
    ):
        patient.judge(information)
        assert patient.active == active


def test_the_estimate_is_that_of_the_weights_as_they_are_and_leaves_no_trace(tmp_path):
    lagging = LaggingInference(IMAGES, check_every=1, seed=3)
    model = fit(tmp_path, steps=5, latents="AR1")
    model.train()
    q = encode_images(model, IMAGES)
    expected = mutual_information(q, torch.Generator().manual_seed(3)).mean().item()
    state = torch.get_rng_state()
    assert lagging.information(model) == pytest.approx(expected, rel=1e-12)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_lagging_inference_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lagging\.inner_steps must be 0 without latents"):
        fit(tmp_path, latents=None, callbacks=[LaggingInference(IMAGES)])
    for name in ("inner_steps", "check_every", "patience"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            LaggingInference(IMAGES, **{name: 0})
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        LaggingInference(IMAGES[:0])


@pytest.mark.parametrize("latents", ["LearnedPrior", "BatchNorm"])
@pytest.mark.parametrize("step", [3, 7])  # in the aggressive phase and after its end
def test_rivals_resume_bit_for_bit(tmp_path, latents, step):
    """Controller, running moments, learned prior and the phase go on where they stopped."""

    def options(*more):
        lagging = LaggingInference(IMAGES, inner_steps=2, check_every=2)
        estimates = {2: 0.1, 4: 0.2, 6: 0.15}
        lagging.information = lambda model: estimates[int(model.aux_prior.updates)]
        return {
            "latents": latents,
            "objective": ControlVAE(6.0, k_i=0.01),
            "callbacks": [lagging, *more],
            "dataset": tiny_data().hold_out_last(9),
            "val_every": 4,
        }

    class StopError(Exception):
        pass

    class Cut(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == step:
                raise StopError

    whole = options()
    first = fit(tmp_path / "whole", **whole)
    with pytest.raises(StopError):
        fit(tmp_path / "cut", checkpoint_minutes=0.0, **options(Cut()))
    again = options()
    second = fit(tmp_path / "cut", resume=True, **again)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    for name, value in whole["objective"].state_dict().items():
        assert torch.equal(value, again["objective"].state_dict()[name]), name
        assert value.item() != 0
    assert whole["callbacks"][0].state_dict() == again["callbacks"][0].state_dict()
    logs = [read_log(tmp_path / name / "log.csv") for name in ("whole", "cut")]
    for one, other in zip(*logs, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_moments_of_the_averaged_weights_are_those_of_the_training_set(tmp_path):
    model = fit(tmp_path, latents="BatchNorm", steps=30, learning_rate=1e-2)
    with torch.no_grad():
        raw = model.encoder(torch.from_numpy(IMAGES))[..., :2]
    assert not torch.allclose(model.latents.running_mean, raw.mean(0), atol=1e-3)
    refit_moments(model, tiny_data(), batch_size=10)
    torch.testing.assert_close(model.latents.running_mean, raw.mean(0))
    torch.testing.assert_close(model.latents.running_variance, raw.var(0, correction=0))
    mu = encode_images(model, IMAGES).mu
    variance = raw.var(0, correction=0)
    scale = model.latents.gamma * (variance / (variance + model.latents.epsilon)).sqrt()
    torch.testing.assert_close(mu.std(0, correction=0), scale, rtol=1e-3, atol=0)
    ar1 = fit(tmp_path / "other", latents="AR1", steps=5)
    before = {k: v.clone() for k, v in ar1.state_dict().items()}
    refit_moments(ar1, tiny_data())  # nothing to do
    assert all(torch.equal(v, before[k]) for k, v in ar1.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("bits", [5.0, 20.0])
def test_the_controlled_rate_of_digits_ends_near_its_target(tmp_path, bits):
    """The mean rate of the last hundred steps, within a tenth of the target."""
    objective, data = ControlVAE(bits, k_i=0.002), load_data("digits")
    pair = Standard(8, 4)
    spec = model_specification(
        data.shape, data.levels, decoder=DECODER, encoder=ENCODER, latents=pair
    )
    fit(
        tmp_path,
        steps=400,
        spec=spec,
        objective=objective,
        dataset=data,
        batch_size=64,
        log_every=100,
    )
    last = read_log(tmp_path / "log.csv")[-1]
    assert last["rate_bits"] == pytest.approx(bits, rel=0.1)
    assert 0 < objective.beta.item() < 1
