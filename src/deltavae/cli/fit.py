"""The commands that train: fit, fit-prior."""

import logging
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LambdaCallback

from deltavae.aux_prior import AuxiliaryPrior
from deltavae.cli import CommandError
from deltavae.cli.console import (
    Options,
    Patience,
    check_writable,
    is_main_process,
    load_dataset,
    measure,
    say,
)
from deltavae.cli.fit_options import MODEL_OPTIONS
from deltavae.cli.progress import TrainingProgress
from deltavae.cli.specified import specified_model
from deltavae.configuration import DEFAULT_RATE_BITS, prior_specification
from deltavae.data import BUILT_IN, Dataset
from deltavae.latents import Latents
from deltavae.model import DeltaVAE
from deltavae.report import build_report
from deltavae.run_folder import RunFolder, instantiate, load, provenance
from deltavae.training import (
    BrokenFloorError,
    DeltaVAEDataModule,
    DeltaVAEModule,
    LaggingInference,
    Outcome,
    TrainingDivergedError,
    refit_moments,
    refit_prior,
    train,
)
from deltavae.units import nats_to_bits


def fit(options: Options) -> int:
    """Train, refit the auxiliary prior, evaluate, report."""
    run, resume = RunFolder(options["run_dir"]), options["resume"]
    if resume:
        _check_holdout(run, options["holdout"])
    elif is_main_process():
        _check_new(run)
    data = load_dataset(options)
    config = _resolved(options, data)
    torch.manual_seed(options["seed"])  # this process is ours; the library itself never seeds
    module = _module(config, options, data)
    state = _checkpoint(run, module) if resume and run.checkpoint.is_file() else None
    if state is None or not _is_over(state, module):
        outcome = _train(module, config, options, data, run)
        if not outcome.main_process:
            return 0
        if outcome.interrupted:
            say(f"stopped at step {outcome.step}; go on with: fit --run-dir {run.path} --resume")
            return 130
        _finish(module.model, outcome.step, outcome.seconds, options, data, run)
    elif not is_main_process():
        return 0
    else:
        say(f"{run.path}: trained already, {state['global_step']} steps")
        if not run.weights.is_file():
            module.load_state_dict({**state["state_dict"], **state["average"]})
            step, seconds = state["global_step"], state["deltavae"]["seconds"]
            _finish(module.model, step, seconds, options, data, run)
    model = load(run.path, trust=options["trust"])
    measure(run, model, data, "test", options)
    if options["report"]:
        say("drawing samples for the report")
        build_report(
            [run],
            run.report,
            seed=options["seed"],
            trust=options["trust"],
            progress=Patience().drawing,
        )
        say(f"report: {run.report}")
    return 0


def _check_new(run: RunFolder) -> None:
    if run.config.exists():
        raise ValueError(
            f"{run.path}: there is a run already: add --resume to go on, or take another --run-dir"
        )
    if run.path.exists() and not run.path.is_dir():
        raise ValueError(f"--run-dir: must be a folder, {run.path} is a file")
    check_writable("--run-dir", run.path)


def _check_holdout(run: RunFolder, holdout: int) -> None:
    begun = run.read_config().get("holdout") or 0
    if holdout != begun:
        raise ValueError(
            f"--holdout: {run.path} holds out {begun} images, got {holdout}: a run goes on with "
            "the training images that it began with; leave it out, or take a new --run-dir"
        )


def _resolved(options: Options, data: Dataset) -> Options:
    # What config.yaml keeps: every option, the model in full instead of the options that shape it.
    model = specified_model(options, data.shape, data.levels)
    drop = (*MODEL_OPTIONS, "model", "given", "resume", "trust", "run_dir")
    kept = {name: value for name, value in options.items() if name not in drop}
    if Path(options["data"]).exists() and options["data"] not in BUILT_IN:
        kept["data"] = Path(options["data"]).absolute()  # the run can be measured from anywhere
    return {**_plain(kept), "model": model}


def _plain(value: Any) -> Any:
    # Values that YAML's safe dialect can write.
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _module(config: Options, options: Options, data: Dataset) -> DeltaVAEModule:
    model = instantiate(config["model"], trust=options["trust"])
    if not isinstance(model, DeltaVAE):
        raise ValueError("model must be a deltavae.model.DeltaVAE")
    made_for = tuple(model.decoder.event_shape), model.decoder.likelihood.levels
    if made_for != (data.shape, data.levels):
        raise ValueError(
            f"model: made for images of shape {made_for[0]} with {made_for[1]} levels, "
            f"{data.name} has {data.shape} with {data.levels}"
        )
    objective = instantiate(config["objective"], trust=options["trust"])
    return DeltaVAEModule(
        model,
        objective,
        steps=_steps(options, data),
        learning_rate=options["learning_rate"],
        warmup_steps=options["warmup_steps"],
        weight_decay=options["weight_decay"],
        clip_norm=options["clip_norm"],
        max_minutes=options["max_minutes"],
        seed=options["seed"],
        log_every=options["log_every"],
        augment=options["augment"],
    )


def _batch_size(options: Options, data: Dataset) -> int:
    wanted: int = options["batch_size"]
    return min(wanted, len(data.train))


def _steps(options: Options, data: Dataset) -> int:
    epochs: float = options["epochs"]
    return max(1, round(epochs * (len(data.train) // _batch_size(options, data))))


def _checkpoint(run: RunFolder, module: DeltaVAEModule) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = torch.load(
            run.checkpoint, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{run.checkpoint}: damaged or truncated: {reason}") from error
    try:
        saved = {name: value.shape for name, value in state["state_dict"].items()}
        ended = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
        step, _, _ = state["global_step"], state["deltavae"]["seconds"], state["average"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{run.checkpoint}: written by another version of deltavae (without {error}): go on "
            "with the version that began the run, or train anew in another --run-dir"
        ) from error
    if ended and module.steps > step:
        raise ValueError(
            f"--epochs: {run.path} was trained to its end, {step} steps, and cannot be prolonged: "
            "take a new --run-dir"
        )
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    if saved != wanted and not (_is_over(state, module) and run.weights.is_file()):
        raise ValueError(
            f"{run.checkpoint}: of another model than {run.config} describes, so it cannot go on"
        )
    return state


def _is_over(state: Mapping[str, Any], module: DeltaVAEModule) -> bool:
    over = state["global_step"] >= module.steps
    return bool(over or state["deltavae"]["seconds"] >= module.max_seconds)


def _train(
    module: DeltaVAEModule, config: Options, options: Options, data: Dataset, run: RunFolder
) -> Outcome:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    batches = DeltaVAEDataModule(
        data,
        steps=module.steps,
        batch_size=_batch_size(options, data),
        seed=options["seed"],
    )

    def begin(trainer: Any, _: Any) -> None:
        if trainer.is_global_zero:  # only now is every option known to be right
            run.write_config(config)
            _introduce(module.model, data, run)
            _say_nearest(module.model.latents, options)

    def seed(trainer: Any, _: Any, stage: str) -> None:
        _seed_process(options["seed"], trainer.global_rank)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            return train(
                module,
                batches,
                run,
                ema_decay=options["ema_decay"],
                checkpoint_minutes=options["checkpoint_minutes"],
                resume=options["resume"],
                val_every=options["val_every"],
                val_examples=options["val_examples"],
                compiled=options["compile"],
                callbacks=[
                    *_lagging(options["lagging"], data),
                    LambdaCallback(setup=seed, on_train_start=begin),
                    TrainingProgress(module.steps),
                ],
                trainer={**options["trainer"], "precision": options["precision"]},
            )
    except (BrokenFloorError, TrainingDivergedError) as error:
        raise CommandError(str(error)) from error
    except MisconfigurationException as error:
        raise ValueError(f"--trainer: {error}") from error
    except SystemExit as error:  # how Lightning answers a Ctrl-C before the first step
        raise KeyboardInterrupt from error


def _lagging(options: Options, data: Dataset) -> list[LaggingInference]:
    if not options["inner_steps"]:
        return []
    source = data.train if data.val is None else data.val
    images = source.images[: options["examples"]]
    settings = {name: value for name, value in options.items() if name != "examples"}
    return [LaggingInference(images, **settings)]


def _seed_process(seed: int, rank: int) -> None:
    # Dropout is to differ from process to process. After the weights are drawn, the same in all of
    # them, and before a checkpoint is read, which has a state for each.
    if rank:
        torch.manual_seed(seed + rank)


def _introduce(model: DeltaVAE, data: Dataset, run: RunFolder) -> None:
    latents = model.latents
    if latents is None:
        rate = "no latents" if model.decoder.latent_shape is None else "no latents: z = 0"
    elif latents.floor == "mean":
        floor = nats_to_bits(latents.mean_rate_floor)
        rate = f"no δ, floor of a training batch's mean rate {floor:.3f} bits"
    else:
        rate = f"δ = {nats_to_bits(latents.committed_rate):.3f} bits"
    if latents is not None:
        rate += f" ({type(latents).__name__} {latents.summary}".rstrip() + ")"
    parameters = sum(p.numel() for p in model.parameters())
    say(
        f"{run.path}: {len(data.train)} training images {data.shape}, {data.levels} levels; "
        f"{parameters:,} parameters; {rate}"
    )


def _say_nearest(latents: Latents | None, options: Options) -> None:
    # A discrete knob may have no place for the rate that was asked for.
    asked = options["delta_bits"]
    if asked is None and options["alpha"] is None:
        asked = DEFAULT_RATE_BITS
    if latents is None or latents.mean_rate_floor == 0 or asked is None or options["model"]:
        return
    nearest = nats_to_bits(latents.mean_rate_floor)
    if abs(nearest - asked) > 1e-6 * asked:
        say(
            f"asked for {asked:g} bits, the nearest that {type(latents).__name__} can commit here "
            f"is {nearest:.6g}"
        )


def _finish(
    model: DeltaVAE, step: int, seconds: float, options: Options, data: Dataset, run: RunFolder
) -> None:
    refit_moments(model, data)
    if model.aux_prior is not None:
        say("fitting the auxiliary prior to the averaged weights")
        refit_prior(model, data, steps=options["prior_steps"], seed=options["seed"])
    origin = provenance(fingerprint=data.fingerprint, seed=options["seed"], train_seconds=seconds)
    run.write_json(run.provenance, {**origin, "steps": step, "data_notes": data.notes})
    run.save_weights(model)


def fit_prior(options: Options) -> int:
    """Fit a new auxiliary prior to a run's encoder."""
    run = RunFolder(options["run"])
    model = load(run.path, trust=options["trust"])
    if model.latents is None:
        raise ValueError(f"{run.path}: this model has no latents")
    config = run.read_config()
    data = load_dataset(config, str(run.config))
    torch.manual_seed(options["seed"])
    present = config["model"]["init_args"].get("aux_prior") or {"init_args": {"hidden": 64}}
    hidden = options["hidden"] or present["init_args"]["hidden"]
    spec = prior_specification(model.latents, hidden)
    prior = instantiate(spec)
    assert isinstance(prior, AuxiliaryPrior)
    model.aux_prior = prior
    refit_prior(
        model, data, steps=options["steps"], examples=options["examples"], seed=options["seed"]
    )
    config["model"]["init_args"]["aux_prior"] = spec
    run.write_config(config)
    run.save_weights(model)
    say(f"{run.path}: new auxiliary prior written; measure it with: deltavae evaluate {run.path}")
    return 0
