"""Pairs in training: no example of any step is below the floor."""

import pytest
import torch
from scipy.sparse import diags_array

from deltavae.configuration import build_latents, model_specification
from deltavae.data import load_data
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import DeltaVAEDataModule, DeltaVAEModule, read_log, train
from deltavae.units import bits_to_nats
from runs import DECODER, ENCODER

CHAIN = diags_array([-0.99, 2.0, -0.99], offsets=[-1, 0, 1], shape=(8, 8))
PAIRS = {
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


@pytest.mark.parametrize(("name", "options"), PAIRS.items(), ids=PAIRS)
def test_no_example_of_any_step_is_below_the_floor(name, options, digits, tmp_path, monkeypatch):
    spec = {"class_path": f"deltavae.latents.{name}", "init_args": options}
    bits = 32.0 if name == "Quantised" else 4.0
    pair = build_latents(spec, n=8, d=4, delta_bits=bits)
    torch.manual_seed(0)
    parts = {"decoder": DECODER, "encoder": ENCODER, "latents": pair, "aux_hidden": 4}
    model = instantiate(model_specification((1, 8, 8), 17, **parts))
    before = {name: value.clone() for name, value in model.latents.named_parameters()}
    kind, seen = type(pair), []
    original = kind.posterior

    def recording(self, params):
        q = original(self, params)
        if torch.is_grad_enabled():
            seen.append((self.rate(q).detach(), self.direct_rate(q).detach()))
        return q

    monkeypatch.setattr(kind, "posterior", recording)
    module = DeltaVAEModule(model, steps=STEPS, learning_rate=3e-2, log_every=1, warmup_steps=1)
    data = DeltaVAEDataModule(digits, steps=STEPS, batch_size=8)
    train(module, data, RunFolder(tmp_path), trainer={"accelerator": "cpu"})
    assert len(seen) == STEPS
    floor = bits_to_nats(bits)
    for rate, direct in seen:
        assert rate.dtype == torch.float32
        assert bool((rate.double() >= floor * (1 - 2e-7)).all())
        torch.testing.assert_close(rate.double(), direct, rtol=2e-5, atol=0)
    log = read_log(tmp_path / "log.csv")
    assert [row["step"] for row in log] == list(range(1, STEPS + 1))
    assert all(row["rate_bits"] >= bits * (1 - 2e-7) for row in log)
    assert model.latents.committed_rate == pytest.approx(floor, rel=1e-9)
    for name, value in model.latents.named_parameters():
        assert bool((value != before[name]).all())
        assert bool(value.grad is None or value.grad.isfinite().all())
