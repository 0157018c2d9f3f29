"""Training: exact resumption, several processes, the auxiliary prior apart, schedules, logs."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from deltavae.data.batches import StepLoader, StepSampler
from deltavae.evaluation import evaluate
from deltavae.objectives import ControlVAE
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import (
    DeltaVAEDataModule,
    DeltaVAEModule,
    TrainingDivergedError,
    Validation,
    WeightAverage,
    compiled_training,
    read_log,
    refit_prior,
    train,
)
from runs import tiny_data, tiny_specification

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}


OF_TRAIN = (
    "compiled",
    "resume",
    "ema_decay",
    "val_every",
    "val_examples",
    "callbacks",
    "checkpoint_minutes",
)


def fit(folder, steps=12, spec=None, dataset=None, **options):
    torch.manual_seed(0)
    model = instantiate(spec or tiny_specification())
    training = {name: options.pop(name) for name in OF_TRAIN if name in options}
    module = DeltaVAEModule(model, steps=steps, log_every=5, warmup_steps=3, **options)
    data = DeltaVAEDataModule(dataset or tiny_data(), steps=steps, batch_size=16)
    outcome = train(module, data, RunFolder(folder), trainer={"accelerator": "cpu"}, **training)
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


@pytest.mark.parametrize("step", [7, 5])  # between two log steps and at one
def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(tmp_path, step):
    """In one process: stopped by a callback, continued from the raw weights."""
    spec = tiny_specification()
    decoder = spec["init_args"]["decoder"]
    decoder["class_path"] = "deltavae.decoders.PixelSNAIL"
    decoder["init_args"]["dropout"] = 0.2
    data = tiny_data().hold_out_last(9)
    same = {"augment": "flip", "dataset": data, "val_every": 4, "spec": spec}
    whole, _, _ = fit(tmp_path / "whole", **same)

    class StopError(Exception):
        pass

    class Cut(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == step:
                raise StopError

    with pytest.raises(StopError):
        fit(tmp_path / "cut", callbacks=[Cut()], checkpoint_minutes=0.0, **same)
    resumed, _, outcome = fit(tmp_path / "cut", resume=True, **same)
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


EVERYTHING = ("--augment", "flip", "--holdout", "8", "--val-every", "7", "--val-examples", "5")
RIVALS = (
    *("--latents", "BatchNorm", "--objective", "ControlVAE", "--objective.bits", "6"),
    *("--lagging.inner-steps", "2", "--lagging.check-every", "5", "--lagging.patience", "5"),
)
needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.mark.parametrize(
    ("how", "more"),
    [
        (signal.SIGKILL, EVERYTHING),
        pytest.param(signal.SIGKILL, (*RIVALS, *EVERYTHING), marks=pytest.mark.slow),
        pytest.param(
            signal.SIGKILL, ("--compile", *EVERYTHING), marks=[pytest.mark.slow, needs_a_compiler]
        ),
        pytest.param(
            signal.SIGINT, ("--compile", *EVERYTHING), marks=[pytest.mark.slow, needs_a_compiler]
        ),
    ],
)
def test_killed_run_resumes_to_the_same_bits(tmp_path, how, more):
    """A signal in mid-epoch, through the command line, against a run that nobody disturbed."""
    data = tmp_path / "data.npz"
    np.savez(data, images=tiny_data(80).train.images * 51)
    options = ["--levels", "5", *more]
    whole = command(data, tmp_path / "whole", *options)
    undisturbed = subprocess.Popen(whole, env=ENVIRONMENT, stderr=subprocess.PIPE)
    killed = subprocess.Popen(command(data, tmp_path / "cut", *options), env=ENVIRONMENT)
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 240
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    killed.send_signal(how)
    assert killed.wait() == (130 if how == signal.SIGINT else -how)
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
    one, other = (read_log(tmp_path / name / "log.csv") for name in ("whole", "cut"))
    assert [{**row, "seconds": 0} for row in one] == [{**row, "seconds": 0} for row in other]
    assert all(row["val_elbo_bpd"] > 0 for row in one if row["step"] % 7 == 0)


@pytest.mark.slow
@needs_a_compiler
def test_compiled_training_has_the_losses_of_plain_training(tmp_path):
    data = tmp_path / "data.npz"
    np.savez(data, images=tiny_data(80).train.images * 51)
    logs = []
    for name, more in {"plain": [], "compiled": ["--compile"]}.items():
        words = ("--levels", "5", "--log-every", "1", "--epochs", "2", *more)
        subprocess.run(command(data, tmp_path / name, *words), env=ENVIRONMENT, check=True)
        logs.append(read_log(tmp_path / name / "log.csv"))
    assert len(logs[0]) == len(logs[1]) == 8
    for one, other in zip(*logs, strict=True):
        for name in ("distortion_bits", "rate_bits", "aux_rate_bits"):
            assert other[name] == pytest.approx(one[name], rel=1e-4)  # float32, 8 steps apart
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("plain", "compiled")]
    assert {k: v.shape for k, v in files[0].items()} == {k: v.shape for k, v in files[1].items()}


def by_processes(folder: Path, devices: int, *more: str) -> None:
    words = [sys.executable, str(HERE / "ddp_worker.py"), str(folder), str(devices), *more]
    subprocess.run(words, env=ENVIRONMENT, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """The folder of three steps by two processes."""
    folder = tmp_path_factory.mktemp("two") / "run"
    by_processes(folder, 2)
    return folder


def test_two_processes_have_the_gradient_of_one(tmp_path, shared):
    by_processes(tmp_path, 1)
    one, two = (torch.load(f / "gradients.pt", weights_only=True) for f in (tmp_path, shared))
    assert len(one) == len(two) == 3
    for alone, together in zip(one, two, strict=True):
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name], gradient, rtol=1e-9, atol=1e-11)


def test_every_process_goes_on_with_random_numbers_of_its_own(tmp_path, shared):
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    shutil.copy(shared / "second.ckpt", checkpoint)
    by_processes(tmp_path, 2, "resume")
    draws = [
        [torch.load(f / f"draws-{rank}.pt", weights_only=True) for f in (shared, tmp_path)]
        for rank in (0, 1)
    ]
    for whole, resumed in draws:
        assert len(whole) == 3
        assert resumed == {2: whole[2]}
    assert draws[0][0][2] != draws[1][0][2]


def test_process_without_a_saved_random_state_keeps_its_own(tmp_path, monkeypatch):
    _, module, _ = fit(tmp_path, steps=5)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    first = saved["deltavae"]["rng"]
    assert first.shape == (1, len(torch.get_rng_state()))
    for states in (first, first[0]):  # as now, and as an older checkpoint has it
        saved["deltavae"]["rng"] = states
        for rank, same in ((0, True), (1, False)):
            torch.manual_seed(5)
            monkeypatch.setattr(DeltaVAEModule, "global_rank", rank)
            module.on_load_checkpoint(saved)
            assert torch.equal(torch.get_rng_state(), first[0]) == same


def flips(module, index):
    """Which images of this step are mirrored: those of x whose first column is no longer 0."""
    x = torch.zeros(len(index), 1, 2, 3, dtype=torch.uint8)
    x[..., 2] = 1
    seen = module.augmented(x, index)
    mirrored = seen[:, 0, 0, 0] == 1
    assert torch.equal(seen, torch.where(mirrored[:, None, None, None], x.flip(3), x))
    return mirrored


def augmenting(seed=0, **options):
    module = DeltaVAEModule(instantiate(tiny_specification()), steps=9, seed=seed, **options)
    assert module.global_step == 0
    return module


def test_flips_are_a_function_of_seed_and_example_and_fair():
    module, index = augmenting(augment="flip"), torch.arange(4000)
    everyone = flips(module, index)
    assert abs(int(everyone.sum()) - 2000) < 150  # 4.7 standard errors
    # Two processes, each with its interleaved share of a batch, flip what one process flips.
    batch = torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    for rank in (0, 1):
        assert torch.equal(flips(module, batch[rank::2]), everyone[batch[rank::2]])
    assert not torch.equal(flips(augmenting(seed=1, augment="flip"), index), everyone)
    assert not flips(augmenting(), index).any()  # off unless it is asked for


def test_flips_change_the_training_and_differ_from_step_to_step(tmp_path):
    seen = []

    class Keep(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(flips(pl_module, torch.arange(400)))

    flipped, _, _ = fit(tmp_path / "a", steps=5, augment="flip", callbacks=[Keep()])
    plain, _, _ = fit(tmp_path / "b", steps=5)
    agree = [(one == other).double().mean().item() for one, other in pairwise(seen)]
    assert all(0.35 < share < 0.65 for share in agree)
    assert any(
        not torch.equal(value, plain.state_dict()[name])
        for name, value in flipped.state_dict().items()
    )


@pytest.mark.parametrize("rivals", [False, True])
def test_no_step_waits_for_the_device_between_log_entries(tmp_path, rivals):
    """On a GPU, reading a number of the device is a wait; on any device it is these operations."""
    waiting = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select"}

    class Forbid(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.calls += 1
            name = function.overloadpacket.__name__
            assert name not in waiting, f"{name} waits for the device"
            return function(*args, **(kwargs or {}))

    forbid, quiet = Forbid(), []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            step = trainer.global_step + 1  # log steps are multiples of 5
            quiet.append(step % 5 != 0)
            if quiet[-1]:
                forbid.__enter__()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if quiet[-1]:
                forbid.__exit__(None, None, None)

    more = {}
    if rivals:
        more = {"spec": tiny_specification("BatchNorm"), "objective": ControlVAE(6.0)}
    fit(tmp_path, steps=12, augment="flip", callbacks=[Watch()], **more)
    assert quiet.count(True) == 10
    assert forbid.calls > 10 * 200  # it did watch: forward, backward, clipping, step, average


def test_validation_measures_the_average_as_evaluate_does(tmp_path):
    data = tiny_data().hold_out_last(12)
    settings = {"steps": 10, "dataset": data, "learning_rate": 1e-2, "ema_decay": 0.9}
    model, _, _ = fit(tmp_path / "a", val_every=4, val_examples=7, **settings)
    log = read_log(tmp_path / "a" / "log.csv")
    assert [row["step"] for row in log] == [4, 5, 8, 10]
    assert ["val_elbo_bpd" in row for row in log] == [True, False, True, True]
    final = evaluate(model, data, split="val", limit=7, seed=0, probe=False)
    for name in (
        "elbo_bpd",
        "distortion_bits",
        "rate_bits",
        "aux_rate_bits",
        "mutual_information_bits",
        "active_units",
    ):
        assert log[-1][f"val_{name}"] == pytest.approx(final[name], rel=1e-9)
    without, _, _ = fit(tmp_path / "b", val_every=0, **settings)
    for name, value in without.state_dict().items():  # measuring leaves no trace
        assert torch.equal(value, model.state_dict()[name]), name
    rows = read_log(tmp_path / "b" / "log.csv")
    assert not any(name.startswith("val_") for row in rows for name in row)


def test_validation_without_latents_and_out_of_range(tmp_path):
    data = tiny_data().hold_out_last(12)
    fit(tmp_path, spec=tiny_specification(None), dataset=data, steps=5)  # at the end by default
    last = read_log(tmp_path / "log.csv")[-1]
    assert {name for name in last if name.startswith("val_")} == {
        "val_elbo_bpd",
        "val_distortion_bits",
    }
    assert last["val_elbo_bpd"] == pytest.approx(last["val_distortion_bits"] / 16)
    with pytest.raises(ValueError, match="val_every must be 0 where no images are held out"):
        fit(tmp_path / "b", val_every=3)
    for name in ("every", "examples"):
        with pytest.raises(ValueError, match=f"val_{name} must be at least 1, got 0"):
            Validation(WeightAverage(), data.val, **{name: 0})


def test_compiled_calls_are_those_of_training_alone(monkeypatch):
    made, calls = [], []

    def compiler(function, **options):
        made.append(options)

        def call(*inputs):
            calls.append(function)
            return function(*inputs)

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    model = instantiate(tiny_specification())
    x = torch.from_numpy(tiny_data().train.images[:3])
    noise = torch.zeros(3, 4, 2)
    keys, plain = list(model.state_dict()), model(x, noise)
    with compiled_training(model, torch.device("cpu")):
        calls.clear()  # the trial
        torch.testing.assert_close(model(x, noise).distortion, plain.distortion, rtol=0, atol=0)
        assert len(calls) == 2  # encoder and decoder
        assert list(model.state_dict()) == keys
        with torch.no_grad():
            model(x, noise)
        assert len(calls) == 2
    model(x, noise)
    assert len(calls) == 2
    assert made[1:] == [{"dynamic": False}] * 2
    assert not {"forward", "log_prob"} & (vars(model.encoder).keys() | vars(model.decoder).keys())


def test_machine_that_cannot_compile_is_told(monkeypatch, tmp_path):
    def broken(function, **options):
        def call(*inputs):
            raise RuntimeError("No working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    told = r"torch.compile does not work here \(No working C\+\+ compiler found\): install"
    with pytest.raises(ValueError, match=told):
        fit(tmp_path / "run", compiled=True)
    assert not (tmp_path / "run" / "config.yaml").exists()


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


def test_shipped_weights_are_the_average_that_grows_from_the_start(tmp_path):
    class Keep(pl.Callback):
        weights: list[torch.Tensor]

        def on_train_start(self, trainer, pl_module):
            self.weights = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.weights.append(next(pl_module.parameters()).detach().double().clone())

    keep = Keep()
    model, _, _ = fit(tmp_path, ema_decay=0.5, callbacks=[keep], learning_rate=1e-2)
    average = keep.weights[0]
    for t, weight in enumerate(keep.weights[1:], start=1):
        memory = min(0.5, (1 + t) / (10 + t))
        average = memory * average + (1 - memory) * weight
    shipped = next(model.parameters()).double()
    torch.testing.assert_close(shipped, average, rtol=0, atol=1e-6)
    assert not torch.allclose(shipped, keep.weights[-1], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="ema_decay must lie in"):
        WeightAverage(1.0)


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


def test_flips_of_what_is_no_image_are_refused():
    model = instantiate(tiny_specification())
    model.decoder.event_shape = (16,)
    with pytest.raises(ValueError, match="augment must be None where events are no images"):
        DeltaVAEModule(model, steps=1, augment="flip")


def test_batches_out_of_range_are_named():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        StepSampler(5, 1, 0, seed=0)
    with pytest.raises(ValueError, match="multiple of the 2 processes, got 3"):
        StepSampler(5, 1, 3, seed=0, world_size=2)
    with pytest.raises(ValueError, match="no auxiliary prior to fit"):
        refit_prior(instantiate(tiny_specification(aux_prior=False)), tiny_data())
