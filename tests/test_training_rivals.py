"""Rivals in training: what lagging inference moves, when it ends; state that resumes exactly."""

import lightning.pytorch as pl
import pytest
import torch

from deltavae.configuration import model_specification
from deltavae.data import load_data
from deltavae.evaluation import encode_images, evaluate, mutual_information
from deltavae.latents import Standard
from deltavae.objectives import (
    Beta,
    ControlVAE,
    CyclicalAnnealing,
    FreeBitsPerChannel,
    FreeBitsPerExample,
    LinearAnnealing,
)
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


STEERING = (
    Beta(0.5),
    LinearAnnealing(),
    CyclicalAnnealing(),
    FreeBitsPerExample(),
    FreeBitsPerChannel(),
    ControlVAE(10.0),
)


@pytest.mark.parametrize("objective", STEERING, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("latents", ["Spherical", "Quantised"])
def test_an_objective_that_could_do_nothing_is_refused(latents, objective):
    model = instantiate(tiny_specification(latents))
    told = f"must be ELBO with {latents}, whose rate is constant: {type(objective).__name__} "
    with pytest.raises(ValueError, match=told):
        DeltaVAEModule(model, objective, steps=1)
    DeltaVAEModule(model, steps=1)
    DeltaVAEModule(instantiate(tiny_specification("AR1")), objective, steps=1)


def test_the_log_has_the_floor_of_a_prior_that_learns(tmp_path):
    spec = tiny_specification("LearnableAR1")
    model = fit(tmp_path / "learned", spec=spec, learning_rate=0.05)
    rows = read_log(tmp_path / "learned" / "log.csv")
    floors = [row["current_committed_rate_bits"] for row in rows]
    assert floors[-1] == pytest.approx(nats_to_bits(model.latents.current_committed_rate), rel=0.2)
    assert len(set(floors)) == len(rows)  # it moves
    assert all(row["rate_bits"] >= row["committed_rate_bits"] for row in rows)
    assert min(floors) >= rows[0]["committed_rate_bits"]
    fit(tmp_path / "fixed", latents="AR1", steps=5)
    assert "current_committed_rate_bits" not in read_log(tmp_path / "fixed" / "log.csv")[0]


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
    watch = Watch()
    lagging = LaggingInference(IMAGES, inner_steps=2, check_every=1, patience=1)
    estimates = iter([0.3, 0.2])
    lagging.information = lambda model: next(estimates)
    fit(tmp_path, callbacks=[lagging, watch], weight_decay=0.1)
    assert watch.moved == [*[INNER, INNER, OUTER] * 2, *[INNER | OUTER] * 6]
    assert not lagging.active
    rows = {row["step"]: row for row in read_log(tmp_path / "log.csv")}
    column = {step: row.get("lagging_information_bits") for step, row in rows.items()}
    assert column == {
        3: pytest.approx(nats_to_bits(0.3)),
        5: None,
        6: pytest.approx(nats_to_bits(0.2)),
        10: None,
        12: None,
    }
    updates = {step: row["decoder_updates"] for step, row in rows.items()}
    assert updates == {3: 1, 5: 1, 6: 2, 10: 6, 12: 8}


def test_extra_inner_steps_leave_the_decoder_all_of_its_updates(tmp_path):
    """K = 2: in the phase, of 2 steps, three moves each, the encoder's first; then one."""
    moves, parts = [], ("encoder", "decoder")
    lagging = LaggingInference(IMAGES, inner_steps=2, check_every=1, patience=1, extra=True)
    estimates = iter([0.3, 0.2])
    lagging.information = lambda model: next(estimates)

    class WatchMoves(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            moving = {
                name
                for name in parts
                if any(p.grad is not None for p in getattr(pl_module.model, name).parameters())
            }
            rates = {group["lr"] / group["peak"] for group in optimizer.param_groups}
            moves.append((trainer.global_step, *moving, *rates))

    model = fit(tmp_path, steps=6, callbacks=[lagging, WatchMoves()], warmup_steps=0)
    moved = [[name for name in move if name in parts] for move in moves]
    in_phase = [["encoder"], ["encoder"], ["decoder"]]
    assert moved[:6] == in_phase * 2
    assert [set(names) for names in moved[6:]] == [set(parts)] * 4
    assert [move[0] for move in moves] == [0, 0, 0, 1, 1, 1, 2, 3, 4, 5]
    assert moves[3][-1] == moves[5][-1] != moves[2][-1]  # the learning rate of their step
    assert model.aux_prior.updates.item() == 10
    last = read_log(tmp_path / "log.csv")[-1]
    assert (last["step"], last["decoder_updates"]) == (6, 6)


def test_extra_inner_steps_take_batches_of_their_own(tmp_path):
    seen = []

    class Keep(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            step = pl_module.training_step

            def training_step(batch, batch_idx):
                seen.append(batch["index"].tolist())
                return step(batch, batch_idx)

            pl_module.training_step = training_step

    lagging = LaggingInference(IMAGES, inner_steps=3, extra=True)
    fit(tmp_path / "a", steps=5, callbacks=[Keep(), lagging])
    with_inner = seen.copy()
    seen.clear()
    fit(tmp_path / "b", steps=20, callbacks=[Keep()])
    outer = [batch for i, batch in enumerate(with_inner) if i % 4 == 3]
    inner = [batch for i, batch in enumerate(with_inner) if i % 4 != 3]
    assert [*outer, *inner] == seen


def test_a_stationary_model_ends_the_phase_and_a_rising_one_does_not(tmp_path):
    """Weights that do not move: the second check finds what the first one found."""
    lagging = LaggingInference(IMAGES, inner_steps=1, check_every=1, patience=1)
    fit(tmp_path, callbacks=[lagging], learning_rate=1e-30, weight_decay=0.0)
    assert not lagging.active
    logged = [r for r in read_log(tmp_path / "log.csv") if "lagging_information_bits" in r]
    assert [row["step"] for row in logged] == [2, 4]
    assert logged[0]["lagging_information_bits"] == logged[1]["lagging_information_bits"]
    patient = LaggingInference(IMAGES, patience=4)
    for information, active in zip(
        (1.0, 0.9, 1.0, 1.1, 1.1, 1.2, 1.0), (True,) * 6 + (False,), strict=True
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
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("step", [2, 3, 7])  # in the aggressive phase, at its check, after its end
def test_rivals_resume_bit_for_bit(tmp_path, latents, extra, step):
    """Controller, running moments, learned prior and the phase go on where they stopped."""

    def options(*more):
        lagging = LaggingInference(
            IMAGES, inner_steps=2, check_every=3 if extra else 1, patience=1, extra=extra
        )
        estimates = {3: 0.2, 6: 0.15, 9: 0.2, 18: 0.15}  # by the steps of all kinds
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


def test_a_measurement_takes_the_moments_of_the_averaged_weights_and_leaves_no_trace(tmp_path):
    """Weights that move fast: the last row is what `evaluate` finds once moments are refitted."""
    data = tiny_data().hold_out_last(12)
    settings = {"latents": "BatchNorm", "steps": 30, "learning_rate": 1e-2, "dataset": data}
    model = fit(tmp_path / "a", val_every=10, **settings)
    without = fit(tmp_path / "b", val_every=0, **settings)
    for name, value in without.state_dict().items():  # running moments too
        assert torch.equal(value, model.state_dict()[name]), name
    last = read_log(tmp_path / "a" / "log.csv")[-1]
    raw = evaluate(model, data, split="val", seed=0, probe=False)
    refit_moments(model, data)
    refitted = evaluate(model, data, split="val", seed=0, probe=False)
    for name in ("rate_bits", "distortion_bits", "elbo_bpd", "mutual_information_bits"):
        assert last[f"val_{name}"] == pytest.approx(refitted[name], rel=1e-9)
        assert last[f"val_{name}"] != pytest.approx(raw[name], rel=1e-3)


def test_lagging_refuses_extra_steps_without_batches_of_its_own(tmp_path):
    torch.manual_seed(0)
    module = DeltaVAEModule(instantiate(tiny_specification()), steps=2)
    items = [{"x": torch.from_numpy(IMAGES[:4]), "index": torch.arange(4)}] * 2
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[LaggingInference(IMAGES, extra=True)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    with pytest.raises(ValueError, match="extra must be False but with the batches of Delta"):
        trainer.fit(module, torch.utils.data.DataLoader(items, batch_size=None))


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
