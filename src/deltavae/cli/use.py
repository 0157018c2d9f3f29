"""The commands that use a run: evaluate, sample, encode, report."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from deltavae.cli.completion import in_rows, read_images
from deltavae.cli.console import Options, Patience, check_output, load_dataset, measure, say
from deltavae.evaluation import encode_images
from deltavae.figures import save_image_grid
from deltavae.model import DeltaVAE
from deltavae.report import build_report
from deltavae.run_folder import RunFolder, load, write_atomically

CANDIDATES = 64  # for the z of a completion, where nothing else is said


def evaluate(options: Options) -> int:
    """Measure a run and write its metrics."""
    run = RunFolder(options["run"])
    model = load(run.path, trust=options["trust"])
    data = load_dataset(run.read_config(), str(run.config))
    metrics = measure(run, model, data, options["split"], options)
    if options["json"]:
        print(json.dumps(metrics, indent=2))
    return 0


def sample(options: Options) -> int:
    """Draw images into a picture or an array."""
    out, count = options["out"], options["n"]
    _check_sample(options)
    model = load(options["run"], trust=options["trust"])
    generator = torch.Generator().manual_seed(options["seed"])
    settings: Options = {
        "generator": generator,
        "temperature": options["temperature"],
        "batch_size": options["batch_size"],
        "progress": partial(Patience().drawing, str(options["run"])),
    }
    columns = None
    if options["complete_from"] is not None:
        images, columns = _complete(model, options, settings)
    elif options["fixed_latent"] is not None:
        rows, columns = options["fixed_latent"], count
        z = model.sample_latents(rows, prior=options["prior"], generator=generator)
        if z is None:
            raise ValueError(f"--fixed-latent: the model of {options['run']} has no latents")
        images = model.decode(z.repeat_interleave(count, dim=0), **settings).cpu().numpy()
    else:
        images = model.sample(count, prior=options["prior"], **settings).cpu().numpy()
    levels = model.decoder.likelihood.levels
    if out.suffix == ".npz":
        _save_arrays(out, {"images": images, "levels": np.array(levels)})
    else:
        save_image_grid(images, levels, out, columns=columns)
    say(f"{out}: {len(images)} images")
    return 0


def _check_sample(options: Options) -> None:
    check_output(options["out"], (".png", ".npz"))
    completing, rows = options["complete_from"] is not None, options["rows"] is not None
    if completing and options["fixed_latent"] is not None:
        raise ValueError("--fixed-latent: not with --complete-from")
    if completing and not rows:
        raise ValueError("missing: --rows, the number of rows that --complete-from is to keep")
    for name in ("rows", "candidates"):
        if options[name] is not None and not completing:
            raise ValueError(f"--{name}: only with --complete-from")


def _complete(
    model: DeltaVAE, options: Options, settings: Options
) -> tuple[UInt8[np.ndarray, "m c h w"], int]:
    # Images for a grid, or for an array the completions alone; and the grid's columns.
    rows, count, candidates = options["rows"], options["n"], options["candidates"] or CANDIDATES
    levels, (c, h, w) = model.decoder.likelihood.levels, model.decoder.event_shape
    if rows > h:
        raise ValueError(f"--rows: must be in 0..{h}, got {rows}")
    given = read_images(options["complete_from"], (c, h, w), levels)
    completion = model.complete(
        torch.from_numpy(given),
        rows * w,
        count,
        candidates=candidates,
        prior=options["prior"],
        **settings,
    )
    if completion.effective_candidates:
        least = min(completion.effective_candidates)
        advice = ": more --candidates would do better" if least < 0.1 * candidates else ""
        say(f"z was chosen among {least:.1f} of {candidates} candidates in effect{advice}")
    completed = completion.events.cpu().numpy()
    if options["out"].suffix == ".npz":
        return completed.reshape(-1, c, h, w), count
    return in_rows(given, completed, rows, levels), count + 2


def _save_arrays(out: Path, arrays: dict[str, Any]) -> None:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)

    write_atomically(out, write)


def encode(options: Options) -> int:
    """Write μ, σ and labels of images."""
    check_output(options["out"], (".npz",))
    run = RunFolder(options["run"])
    model = load(run.path, trust=options["trust"])
    if model.latents is None:
        raise ValueError(f"{run.path}: this model has no latents: there is nothing to encode")
    like_run = {name: run.read_config().get(name) for name in ("size", "grey", "levels")}
    chosen = {name: options[name] for name in ("data", "data_dir")}
    data = load_dataset({**like_run, **chosen})
    needed = tuple(model.decoder.event_shape), model.decoder.likelihood.levels
    if (data.shape, data.levels) != needed:
        raise ValueError(
            f"--data: images of shape {data.shape} with {data.levels} levels, "
            f"{run.path} was trained on shape {needed[0]} with {needed[1]} levels"
        )
    split = data.in_source_order if options["split"] == "all" else getattr(data, options["split"])
    q = encode_images(model, split.images)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in q.arrays().items()}
    if split.labels is not None:
        arrays["labels"] = split.labels
    _save_arrays(options["out"], arrays)
    say(f"{options['out']}: {len(q.mu)} posteriors of shape {tuple(q.mu.shape[1:])}")
    return 0


def report(options: Options) -> int:
    """Write one page of one or several runs."""
    check_output(options["out"], (".html",))
    runs = [RunFolder(path) for path in options["runs"]]
    build_report(
        runs,
        options["out"],
        seed=options["seed"],
        trust=options["trust"],
        progress=Patience().drawing,
    )
    say(f"report: {options['out']}")
    return 0
