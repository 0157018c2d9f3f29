"""The commands: options in, files and a few lines out."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deltavae.aux_prior import AuxiliaryPrior
from deltavae.cli.parsing import CommandError
from deltavae.cli.progress import TrainingProgress
from deltavae.configuration import (
    ENCODERS,
    build_latents,
    ladder_rate,
    model_specification,
)
from deltavae.data import Dataset, load_data
from deltavae.evaluation.encodings import encode_images
from deltavae.evaluation.evaluate import evaluate as measure
from deltavae.evaluation.evaluate import warnings as warnings_of
from deltavae.figures import save_image_grid
from deltavae.model import DeltaVAE
from deltavae.objectives import ELBO, Objective
from deltavae.rates import committed_rate, minimiser
from deltavae.report import build_report
from deltavae.run_folder import RunFolder, instantiate, load, provenance, write_atomically
from deltavae.training import (
    DeltaVAEDataModule,
    DeltaVAEModule,
    Outcome,
    TrainingDivergedError,
    refit_prior,
    train,
)
from deltavae.units import nats_to_bits

Options = dict[str, Any]
Split = Literal["train", "test"]

DATA_OPTIONS = ("data", "data_dir", "size", "grey", "levels")
MODEL_OPTIONS = (
    "decoder",
    "latents",
    "encoder",
    "likelihood",
    "delta_bits",
    "latent_channels",
    "alpha",
    "aux_hidden",
)


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks: Lightning starts the others."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def say(text: str) -> None:
    """Tell the user on the error stream, once, whatever the number of processes."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def fit(options: Options) -> int:
    """Train, refit the auxiliary prior, evaluate, report."""
    run = RunFolder(options["run_dir"])
    main_process = is_main_process()
    if main_process and run.config.exists() and not options["resume"]:
        raise ValueError(
            f"{run.path}: there is a run already: add --resume to go on, or take another --run-dir"
        )
    data = _load(options)
    config = _resolved(options, data)
    torch.manual_seed(options["seed"])  # this process is ours; the library itself never seeds
    model = instantiate(config["model"], trust=options["trust"])
    if not isinstance(model, DeltaVAE):
        raise ValueError("model must be a deltavae.model.DeltaVAE")
    if tuple(model.decoder.event_shape) != data.shape:
        raise ValueError(
            f"model: made for images of shape {tuple(model.decoder.event_shape)}, "
            f"{data.name} has {data.shape}"
        )
    objective = instantiate(config["objective"], trust=options["trust"])
    if main_process:
        run.write_config(config)
        _introduce(model, data, run)
    outcome = _train(model, objective, options, data, run)
    if not outcome.main_process:
        return 0
    if outcome.interrupted:
        say(f"stopped at step {outcome.step}; go on with: fit --run-dir {run.path} --resume")
        return 130
    if model.aux_prior is not None:
        say("fitting the auxiliary prior to the averaged weights")
        refit_prior(model, data, steps=options["prior_steps"], seed=options["seed"])
    run.save_weights(model)
    origin = provenance(
        fingerprint=data.fingerprint, seed=options["seed"], train_seconds=outcome.seconds
    )
    run.write_json(run.provenance, {**origin, "steps": outcome.step, "data_notes": data.notes})
    _measure(run, model, data, "test", options)
    say("drawing samples for the report")
    build_report([run], run.report, seed=options["seed"], trust=options["trust"])
    say(f"report: {run.report}")
    return 0


def _load(options: Options) -> Dataset:
    data = load_data(
        options["data"],
        size=options["size"],
        grey=options["grey"],
        levels=options["levels"],
        data_dir=options["data_dir"],
    )
    for note in data.notes:
        say(f"{data.name}: {note}")
    return data


def _resolved(options: Options, data: Dataset) -> Options:
    # What config.yaml keeps: every option, the model in full instead of the options that shape it.
    if options["model"] is not None and options["given"]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options["given"])
        raise ValueError(f"{names}: without effect, the configuration holds a complete model")
    model = options["model"] or _assembled(options, data)
    drop = (*MODEL_OPTIONS, "model", "given", "resume", "trust", "run_dir")
    kept = {name: value for name, value in options.items() if name not in drop}
    return {**_plain(kept), "model": model}


def _assembled(options: Options, data: Dataset) -> Options:
    latents = None
    encoder = options["encoder"]
    if isinstance(encoder, str):
        encoder = {"class_path": ENCODERS[encoder]}
    if options["latents"] != "none":
        latents = build_latents(
            options["latents"],
            n=data.shape[1],
            d=options["latent_channels"],
            delta_bits=options["delta_bits"],
            alpha=options["alpha"],
            trust=options["trust"],
        )
    return model_specification(
        data.shape,
        data.levels,
        decoder=options["decoder"],
        encoder=encoder,
        latents=latents,
        likelihood=options["likelihood"],
        aux_hidden=options["aux_hidden"],
    )


def _plain(value: Any) -> Any:
    # Values that YAML's safe dialect can write.
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _introduce(model: DeltaVAE, data: Dataset, run: RunFolder) -> None:
    latents = model.latents
    rate = (
        "no latents" if latents is None else f"δ = {nats_to_bits(latents.committed_rate):.3f} bits"
    )
    parameters = sum(p.numel() for p in model.parameters())
    say(
        f"{run.path}: {len(data.train)} training images {data.shape}, {data.levels} levels; "
        f"{parameters:,} parameters; {rate}"
    )


def _train(
    model: DeltaVAE, objective: Objective | None, options: Options, data: Dataset, run: RunFolder
) -> Outcome:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    batch = min(options["batch_size"], len(data.train))
    if options["batch_size"] < 1:
        raise ValueError(f"batch_size must be at least 1, got {options['batch_size']}")
    if not options["epochs"] > 0:
        raise ValueError(f"epochs must be above 0, got {options['epochs']}")
    steps = max(1, round(options["epochs"] * (len(data.train) // batch)))
    module = DeltaVAEModule(
        model,
        objective or ELBO(),
        steps=steps,
        learning_rate=options["learning_rate"],
        warmup_steps=options["warmup_steps"],
        weight_decay=options["weight_decay"],
        clip_norm=options["clip_norm"],
        max_minutes=options["max_minutes"],
        seed=options["seed"],
        log_every=options["log_every"],
    )
    batches = DeltaVAEDataModule(data, steps=steps, batch_size=batch, seed=options["seed"])
    try:
        return train(
            module,
            batches,
            run,
            ema_decay=options["ema_decay"],
            checkpoint_minutes=options["checkpoint_minutes"],
            resume=options["resume"],
            callbacks=[TrainingProgress(steps)],
            trainer={**options["trainer"], "precision": options["precision"]},
        )
    except TrainingDivergedError as error:
        raise CommandError(str(error)) from error


def _measure(
    run: RunFolder, model: DeltaVAE, data: Dataset, split: Split, options: Options
) -> Options:
    say(f"evaluating on the {split} split")
    metrics = measure(
        model,
        data,
        split=split,
        importance_samples=options["importance_samples"],
        limit=options["limit"],
        seed=options["seed"],
    )
    seconds = run.read_json(run.provenance).get("train_seconds")
    metrics = {**metrics, "train_seconds": seconds}
    run.write_json(run.metrics, {**run.read_json(run.metrics), split: metrics})
    _show(run, split, metrics)
    return metrics


def _show(run: RunFolder, split: str, metrics: Options) -> None:
    table = Table(title=f"{run.path} · {split}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("± standard error", justify="right")
    for name, value in metrics.items():
        if isinstance(value, bool | str | list) or value is None or name.endswith("_se"):
            continue
        error = metrics.get(f"{name}_se")
        digits = 0 if isinstance(value, int) else 4
        table.add_row(name, f"{value:,.{digits}f}", "" if error is None else f"{error:.4f}")
    Console(stderr=True).print(table)
    for warning in warnings_of(metrics):
        say(f"warning: {warning}")


def fit_prior(options: Options) -> int:
    """Fit a new auxiliary prior to a run's encoder."""
    run = RunFolder(options["run"])
    model = load(run.path, trust=options["trust"])
    if model.latents is None:
        raise ValueError(f"{run.path}: this model has no latents")
    config = run.read_config()
    data = _load(config)
    torch.manual_seed(options["seed"])
    spec = {"n": model.latents.n, "d": model.latents.d, "hidden": options["hidden"]}
    model.aux_prior = AuxiliaryPrior(**spec)
    refit_prior(
        model, data, steps=options["steps"], examples=options["examples"], seed=options["seed"]
    )
    config["model"]["init_args"]["aux_prior"] = {
        "class_path": "deltavae.aux_prior.AuxiliaryPrior",
        "init_args": spec,
    }
    run.write_config(config)
    run.save_weights(model)
    say(f"{run.path}: new auxiliary prior written; measure it with: deltavae evaluate {run.path}")
    return 0


def evaluate(options: Options) -> int:
    """Measure a run and write its metrics."""
    run = RunFolder(options["run"])
    model = load(run.path, trust=options["trust"])
    metrics = _measure(run, model, _load(run.read_config()), options["split"], options)
    if options["json"]:
        print(json.dumps(metrics, indent=2))
    return 0


def sample(options: Options) -> int:
    """Draw images into a picture or an array."""
    out, count, rows = options["out"], options["n"], options["fixed_latent"]
    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out: must end in .png or .npz, got {out}")
    for name, value in (("--n", count), ("--fixed-latent", 1 if rows is None else rows)):
        if value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")
    model = load(options["run"], trust=options["trust"])
    generator = torch.Generator().manual_seed(options["seed"])
    settings = {"generator": generator, "temperature": options["temperature"]}
    if rows is None:
        images = model.sample(count, prior=options["prior"], **settings)
    else:
        z = model.sample_latents(rows, prior=options["prior"], generator=generator)
        if z is None:
            raise ValueError("--fixed-latent: this model has no latents")
        images = model.decode(z.repeat_interleave(count, dim=0), **settings)
    arrays = images.cpu().numpy()
    levels = model.decoder.likelihood.levels
    if out.suffix == ".npz":
        _save_arrays(out, {"images": arrays, "levels": np.array(levels)})
    else:
        save_image_grid(arrays, levels, out, columns=count if rows else None)
    say(f"{out}: {len(arrays)} images")
    return 0


def _save_arrays(out: Path, arrays: dict[str, Any]) -> None:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)

    write_atomically(out, write)


def encode(options: Options) -> int:
    """Write μ, σ and labels of images."""
    if options["out"].suffix != ".npz":
        raise ValueError(f"--out: must end in .npz, got {options['out']}")
    run = RunFolder(options["run"])
    model = load(run.path, trust=options["trust"])
    if model.latents is None:
        raise ValueError(f"{run.path}: this model has no latents: there is nothing to encode")
    kept = {name: run.read_config()[name] for name in ("size", "grey", "levels")}
    data = _load({**kept, "data": options["data"], "data_dir": options["data_dir"]})
    if data.shape != tuple(model.decoder.event_shape):
        raise ValueError(
            f"--data: images of shape {data.shape}, the run has {tuple(model.decoder.event_shape)}"
        )
    split = {"train": data.train, "test": data.test, "all": data.in_source_order}[options["split"]]
    q = encode_images(model, split.images)
    arrays: dict[str, Any] = {"mu": q.mu.numpy(), "sigma": q.sigma.numpy()}
    if split.labels is not None:
        arrays["labels"] = split.labels
    _save_arrays(options["out"], arrays)
    say(f"{options['out']}: {len(q.mu)} posteriors of shape {tuple(q.mu.shape[1:])}")
    return 0


def report(options: Options) -> int:
    """Write one page of one or several runs."""
    runs = [RunFolder(path) for path in options["runs"]]
    build_report(runs, options["out"], seed=options["seed"], trust=options["trust"])
    say(f"report: {options['out']}")
    return 0


def rate(options: Options) -> int:
    """Print δ, α and the minimiser."""
    n, d = options["n"], options["d"]
    alpha = ladder_rate(
        n,
        d,
        delta_bits=options["delta_bits"],
        delta_nats=options["delta_nats"],
        alpha=options["alpha"],
    )
    nats = committed_rate(alpha, n)
    sigma = minimiser(alpha, n)
    if options["json"]:
        values = {
            "n": n,
            "d": d,
            "committed_rate_bits": nats_to_bits(nats),
            "committed_rate_nats": nats,
            "alpha": alpha.tolist(),
            "minimiser_sigma_ends": sigma[0].tolist(),
            "minimiser_sigma_inside": sigma[n // 2].tolist() if n > 2 else None,
        }
        print(json.dumps(values, indent=2))
        return 0
    print(f"committed rate δ = {nats_to_bits(nats):.6f} bits = {nats:.6f} nats (n = {n}, d = {d})")
    print("the posterior of that rate: μ = 0, and per channel")
    print(f"  {'α':>14}  {'σ first, last':>14}  {'σ inside':>14}")
    for k, value in enumerate(alpha.tolist()):
        inside = f"{sigma[n // 2, k]:14.9f}" if n > 2 else f"{'–':>14}"
        print(f"  {value:14.9f}  {sigma[0, k]:14.9f}  {inside}")
    return 0
