"""Pairs in training: no example of any step is below the floor."""

import pytest
import torch
from scipy.sparse import diags_array

from deltavae.configuration import build_latents, model_specification
from deltavae.data import load_data
from deltavae.latents import BatchNorm
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import DeltaVAEDataModule, DeltaVAEModule, read_log, train
from deltavae.units import bits_to_nats
from runs import DECODER, ENCODER

CHAIN = diags_array([-0.99, 2.0, -0.99], offsets=[-1, 0, 1], shape=(8, 8))
PAIRS = {
    "AR1": {},
    "AR1 of the paper": {"minimiser_units": False, "innovations": False},
    "ARp": {},
    "Matern": {"nu": 2.5},
    "SquaredExponential": {"minimiser_units": True},
    "Grid": {"minimiser_units": True},
    "Tree": {"depth": 3},
    "GaussianMarkov": {"precision": CHAIN},
    "LearnableAR1": {},
    "BoundedVariance": {},
    "Independent": {},
    "Spherical": {},
    "Categorical": {},
    "Quantised": {},
}
STEPS = 6


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def trained(latents, digits, folder):
    """Train a small model with a pair for STEPS steps, its log and its latents."""
    torch.manual_seed(0)
    parts = {"decoder": DECODER, "encoder": ENCODER, "latents": latents, "aux_hidden": 4}
    model = instantiate(model_specification((1, 8, 8), 17, **parts))
    module = DeltaVAEModule(model, steps=STEPS, learning_rate=3e-2, log_every=1, warmup_steps=1)
    data = DeltaVAEDataModule(digits, steps=STEPS, batch_size=8)
    train(module, data, RunFolder(folder), trainer={"accelerator": "cpu"})
    return model.latents, read_log(folder / "log.csv")


def recorded(kind, monkeypatch, measure):
    """What `measure` finds of every posterior of a training step."""
    original, seen = kind.posterior, []

    def recording(self, params):
        q = original(self, params)
        if torch.is_grad_enabled():
            seen.append(measure(self, q))
        return q

    monkeypatch.setattr(kind, "posterior", recording)
    return seen


@pytest.mark.parametrize(("name", "options"), PAIRS.items(), ids=PAIRS)
def test_no_example_of_any_step_is_below_the_floor(name, options, digits, tmp_path, monkeypatch):
    spec = {"class_path": f"deltavae.latents.{name.split()[0]}", "init_args": options}
    bits = 32.0 if name == "Quantised" else 4.0
    pair = build_latents(spec, n=8, d=4, delta_bits=bits)
    before = {name: value.clone() for name, value in pair.named_parameters()}
    seen = recorded(
        type(pair), monkeypatch, lambda pair, q: (pair.rate(q).detach(), pair.direct_rate(q))
    )
    latents, log = trained(pair, digits, tmp_path)
    assert len(seen) == STEPS
    floor = bits_to_nats(bits)
    for rate, direct in seen:
        assert rate.dtype == torch.float32
        assert bool((rate.double() >= floor * (1 - 2e-7)).all())
        torch.testing.assert_close(rate.double(), direct, rtol=2e-5, atol=0)
    assert [row["step"] for row in log] == list(range(1, STEPS + 1))
    assert all(row["rate_bits"] >= bits * (1 - 2e-7) for row in log)
    assert latents.committed_rate == pytest.approx(floor, rel=1e-9)
    for name, value in latents.named_parameters():
        assert bool((value != before[name]).all())
        assert bool(value.grad is None or value.grad.isfinite().all())


def test_batch_normalised_means_keep_the_floor_on_every_batch(digits, tmp_path, monkeypatch):
    pair = BatchNorm.from_rate(bits_to_nats(4.0), n=8, d=4)
    seen = recorded(BatchNorm, monkeypatch, lambda pair, q: pair.rate(q).detach().double())
    _, log = trained(pair, digits, tmp_path)
    assert len(seen) == STEPS
    assert all(rate.mean() >= bits_to_nats(4.0) * (1 - 2e-7) for rate in seen)
    assert any(rate.min() < bits_to_nats(4.0) for rate in seen)  # one example has no floor
    assert all(row["rate_bits"] >= 4.0 * (1 - 2e-7) for row in log)
