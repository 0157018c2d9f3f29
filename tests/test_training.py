"""Training: exact resumption, several processes, the auxiliary prior apart, schedules, logs."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deltavae.data.batches import StepLoader, StepSampler
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import (
    DeltaVAEDataModule,
    DeltaVAEModule,
    TrainingDivergedError,
    ema,
    read_log,
    refit_prior,
    train,
)
from runs import tiny_data, tiny_specification

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}


def fit(folder, steps=12, resume=False, spec=None, **options):
    torch.manual_seed(0)
    model = instantiate(spec or tiny_specification())
    module = DeltaVAEModule(model, steps=steps, log_every=5, warmup_steps=3, **options)
    data = DeltaVAEDataModule(tiny_data(), steps=steps, batch_size=16)
    outcome = train(module, data, RunFolder(folder), resume=resume, trainer={"accelerator": "cpu"})
    return model, module, outcome


def test_auxiliary_prior_leaves_the_trained_weights_the_same_bits(tmp_path):
    with_prior, _, _ = fit(tmp_path / "a")
    without, _, _ = fit(tmp_path / "b", spec=tiny_specification(aux_prior=False))
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_prior.state_dict()[name]), name


def test_training_learns_and_never_falls_below_the_floor(tmp_path):
    model, _, outcome = fit(tmp_path, steps=60, learning_rate=1e-2)
    log = read_log(tmp_path / "log.csv")
    assert [row["step"] for row in log] == list(range(5, 61, 5))
    assert log[-1]["elbo_bpd"] < log[0]["elbo_bpd"] - 0.3
    floor = log[0]["committed_rate_bits"]
    assert floor == pytest.approx(4.0, abs=1e-6)
    assert all(row["rate_bits"] >= floor * (1 - 1e-6) for row in log)
    assert outcome.step == 60
    assert not outcome.interrupted
    assert outcome.seconds == pytest.approx(log[-1]["seconds"], abs=1.0)
    assert model.aux_prior.updates.item() == 60


def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(tmp_path):
    """In one process: stopped by a callback at step 7, continued from the raw weights."""
    whole, _, _ = fit(tmp_path / "whole", steps=12)

    class StopError(Exception):
        pass

    torch.manual_seed(0)
    model = instantiate(tiny_specification())
    module = DeltaVAEModule(model, steps=12, log_every=5, warmup_steps=3)
    data = DeltaVAEDataModule(tiny_data(), steps=12, batch_size=16)

    class Cut(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 7:
                raise StopError

    with pytest.raises(StopError):
        train(
            module,
            data,
            RunFolder(tmp_path / "cut"),
            checkpoint_minutes=0.0,
            callbacks=[Cut()],
            trainer={"accelerator": "cpu"},
        )
    resumed, _, outcome = fit(tmp_path / "cut", steps=12, resume=True)
    assert outcome.step == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    logs = [read_log(tmp_path / name / "log.csv") for name in ("whole", "cut")]
    for one, other in zip(*logs, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def command(data: Path, folder: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "deltavae", "fit", "--data", str(data), "--run-dir", str(folder)),
        *("--decoder.channels", "8", "--decoder.layers", "2", "--encoder.channels", "6"),
        *("--latent-channels", "2", "--delta-bits", "4", "--epochs", "30", "--batch-size", "16"),
        *("--checkpoint-minutes", "0", "--prior-steps", "5", "--importance-samples", "0"),
        *more,
    ]


def test_killed_run_resumes_to_the_same_bits(tmp_path):
    """SIGKILL in mid-epoch, through the command line, against a run that nobody disturbed."""
    data = tmp_path / "data.npz"
    np.savez(data, images=tiny_data(80).train.images * 51)
    options = ["--levels", "5"]
    whole = command(data, tmp_path / "whole", *options)
    undisturbed = subprocess.Popen(whole, env=ENVIRONMENT, stderr=subprocess.PIPE)
    killed = subprocess.Popen(command(data, tmp_path / "cut", *options), env=ENVIRONMENT)
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 0 < step < 4 * 30  # four or more steps an epoch: it was cut before the end
    resume = [sys.executable, "-m", "deltavae", "fit", "--run-dir", str(tmp_path / "cut")]
    done = subprocess.run([*resume, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert undisturbed.wait() == 0, undisturbed.stderr.read()
    undisturbed.stderr.close()
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut")]
    assert files[0].keys() == files[1].keys()
    for name, value in files[0].items():
        assert torch.equal(value, files[1][name]), name


def test_two_processes_have_the_gradient_of_one(tmp_path):
    for devices in (1, 2):
        subprocess.run(
            [
                sys.executable,
                str(HERE / "ddp_worker.py"),
                str(tmp_path / str(devices)),
                str(devices),
            ],
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
            timeout=120,
        )
    one, two = (torch.load(tmp_path / d / "gradients.pt", weights_only=True) for d in ("1", "2"))
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two, strict=True):
        for name, gradient in alone.items():
            torch.testing.assert_close(shared[name], gradient, rtol=1e-9, atol=1e-11)


def test_processes_share_every_batch_without_overlap():
    alone = StepSampler(50, 9, 12, seed=3)
    shares = [StepSampler(50, 9, 12, seed=3, rank=r, world_size=3) for r in range(3)]
    for step in range(9):
        parts = torch.cat([share.batch(step) for share in shares])
        assert sorted(parts.tolist()) == sorted(alone.batch(step).tolist())
    epoch = torch.cat([alone.batch(step) for step in range(4)])
    assert len(set(epoch.tolist())) == 48  # no example twice in an epoch


def test_loader_continues_where_its_state_says():
    data = tiny_data()

    def loader():
        return StepLoader(data.train, StepSampler(48, 7, 16, seed=1))

    whole = [batch["index"].tolist() for batch in loader()]
    first = loader()
    begun = [next_batch["index"].tolist() for next_batch, _ in zip(first, range(3), strict=False)]
    assert begun == whole[:3]
    second = loader()
    second.load_state_dict({"step": 3})
    assert second.state_dict() == {"step": 3}
    assert [batch["index"].tolist() for batch in second] == whole[3:]
    batch = next(iter(loader()))
    assert torch.equal(batch["x"], torch.from_numpy(data.train.images[batch["index"]]))


def test_learning_rate_rises_linearly_then_falls_on_a_cosine():
    module = DeltaVAEModule(instantiate(tiny_specification()), steps=100, warmup_steps=10)
    assert module.rate_factor(0) == pytest.approx(0.1)
    assert module.rate_factor(50) == pytest.approx(0.5)
    assert module.rate_factor(100) == pytest.approx(0.0, abs=1e-12)
    timed = DeltaVAEModule(
        instantiate(tiny_specification()), steps=100, warmup_steps=1, max_minutes=1.0
    )
    timed.seconds = 45.0  # three quarters of the time, whatever the step
    assert timed.rate_factor(10) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))


def test_time_limit_ends_the_training_with_a_checkpoint(tmp_path):
    model, module, outcome = fit(tmp_path, steps=100_000, max_minutes=2.0 / 60)
    assert 0 < outcome.step < 100_000
    assert 2.0 <= module.seconds < 10.0
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == outcome.step
    again, _, more = fit(tmp_path, steps=100_000, max_minutes=2.0 / 60, resume=True)
    assert more.step == outcome.step  # its time was up: not one step more
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_shipped_weights_are_the_average_that_grows_from_the_start():
    average = ema(0.9)
    value, weights = torch.tensor(0.0, dtype=torch.float64), []
    for t in range(200):
        value = average(value, torch.tensor(float(t), dtype=torch.float64), t)
        weights.append(min(0.9, (1 + t) / (10 + t)))
    by_hand = 0.0
    for t, weight in enumerate(weights):
        by_hand = weight * by_hand + (1 - weight) * t
    assert value.item() == pytest.approx(by_hand, rel=1e-12)
    constant = torch.tensor(0.1)
    assert average(constant, constant, 3).item() == constant.item()
    with pytest.raises(ValueError, match="ema_decay must lie in"):
        ema(1.0)


def test_divergence_is_told_with_its_step_and_the_last_good_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = instantiate(tiny_specification())
    module = DeltaVAEModule(model, steps=20, log_every=5)
    data = DeltaVAEDataModule(tiny_data(), steps=20, batch_size=16)

    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 7:
                next(model.decoder.parameters()).data.fill_(math.nan)

    run = RunFolder(tmp_path)
    settings = {"checkpoint_minutes": 0.0, "trainer": {"accelerator": "cpu"}}
    with pytest.raises(
        TrainingDivergedError, match=r"not finite at step 8 .*last good checkpoint is"
    ):
        train(module, data, run, callbacks=[Poison()], **settings)
    saved = torch.load(run.checkpoint, weights_only=True)
    assert saved["global_step"] == 7
    assert all(v.isfinite().all() for v in saved["state_dict"].values())


def test_refit_brings_the_auxiliary_rate_down_and_touches_nothing_else(tmp_path):
    model, _, _ = fit(tmp_path, steps=40, learning_rate=1e-2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.from_numpy(tiny_data().train.images)
    noise = torch.randn(48, 4, 2, generator=torch.Generator().manual_seed(0))
    first = model.eval()(x, noise).aux_rate.mean().item()
    refit_prior(model, tiny_data(), steps=200)
    assert model(x, noise).aux_rate.mean().item() < first
    for name, value in model.state_dict().items():
        if not name.startswith("aux_prior"):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    "name",
    ["steps", "learning_rate", "clip_norm", "log_every", "max_minutes", "aux_learning_rate"],
)
def test_settings_out_of_range_are_named(name):
    options = {"steps": 1, name: 0 if name in ("steps", "log_every") else 0.0}
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
        DeltaVAEModule(instantiate(tiny_specification()), **options)


def test_batches_out_of_range_are_named():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        StepSampler(5, 1, 0, seed=0)
    with pytest.raises(ValueError, match="multiple of the 2 processes, got 3"):
        StepSampler(5, 1, 3, seed=0, world_size=2)
    with pytest.raises(ValueError, match="no auxiliary prior to fit"):
        refit_prior(instantiate(tiny_specification(aux_prior=False)), tiny_data())
