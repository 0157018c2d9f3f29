"""The page: run folders in, one HTML file out that needs no other file and no network.

Everything is inline: the style, plots as SVG, pictures as PNG with exact pixels. The words come
from `summary`, the numbers from `table`; the template escapes whatever a name or a file holds.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure
from PIL import Image

from deltavae import __version__, figures
from deltavae.data import load_data
from deltavae.latents import AR1, LearnableAR1
from deltavae.model import DeltaVAE
from deltavae.report.samples import Samples, draw_samples
from deltavae.report.summary import Result, rank, summarise
from deltavae.report.table import table
from deltavae.run_folder import RunFolder, to_yaml, write_atomically
from deltavae.training import read_log
from deltavae.units import nats_to_bits

_SHOWN = 32  # originals on the page
Images: TypeAlias = UInt8[np.ndarray, "_m ..."]


@dataclass(frozen=True)
class Picture:
    """An image of the page.

    Attributes:
        uri: Its content as a data: address.
        alt: What it shows, for readers who do not see it.
        caption: The line below it.
        kind: "plot" or "pixels".
    """

    uri: str
    alt: str
    caption: str
    kind: str


@dataclass(frozen=True, eq=False)
class _Run:
    folder: RunFolder
    result: Result
    model: DeltaVAE
    images: Images | None
    note: str  # why there are no images; empty where there are

    @property
    def name(self) -> str:
        return self.result.name


def build_report(
    runs: Sequence[RunFolder],
    out: Path,
    *,
    images: Mapping[Path, Images] | None = None,
    samples: Mapping[Path, Samples] | None = None,
    split: Literal["train", "test"] = "test",
    seed: int = 0,
    trust: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write the page of one or several runs, the first of which is "the run".

    Args:
        runs: Evaluated runs, at least one, each once.
        out: The HTML file.
        images: For a run's path, originals to show and to encode; for the others they are loaded
            as their configurations say, and left out, with a note, where that fails.
        samples: For a run's path, what has been drawn already; for the others it is drawn here.
        split: The split whose metrics and originals are shown.
        seed: Seed of what is drawn here, the same for every run.
        trust: Take classes from outside deltavae too.
        progress: Called with a run's name, positions drawn and positions altogether.

    Raises:
        ValueError: If runs are empty or repeated, or a run has no metrics of the split, no
            configuration or no weights.
    """
    if not runs:
        raise ValueError("runs must name at least one run folder")
    results = _results(runs, split)
    loaded, drawn = [], []
    for folder, result in zip(runs, results, strict=True):
        model = folder.load_model(trust=trust)
        given = (images or {}).get(folder.path)
        found = _load_images(folder, split, model) if given is None else (given, "")
        loaded.append(_Run(folder, result, model, *found))
    for run in loaded:
        ready = (samples or {}).get(run.folder.path)
        drawn.append(_draw(run, seed, progress) if ready is None else ready)
    ranking = rank(results)
    text = _template().render(
        names=[run.name for run in loaded],
        split=split,
        summary=summarise(results, split),
        rows=table(results, ranking),
        rates=_rates(results),
        curves=_curves(results),
        originals=_originals(loaded),
        samples=[
            (run.name, run.note, _pictures(run, events))
            for run, events in zip(loaded, drawn, strict=True)
        ],
        heatmaps=[(run.name, _heatmap(run)) for run in loaded],
        committed=_committed(loaded),
        details=[(run.name, _provenance(run), _configuration(run)) for run in loaded],
        version=__version__,
    )
    write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("deltavae.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _results(runs: Sequence[RunFolder], split: str) -> list[Result]:
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"runs must name every run folder once, got {path} twice")
    short = [path.name for path in paths]
    results = []
    for run, path in zip(runs, paths, strict=True):
        run.read_config()  # says so if this is no run folder
        metrics = run.read_json(run.metrics)
        if not metrics:
            raise ValueError(f"{run.path}: no metrics.json: run deltavae evaluate first")
        if not isinstance(metrics.get(split), dict):
            raise ValueError(
                f'{run.metrics}: no metrics of the split "{split}", only of {", ".join(metrics)}: '
                f"run deltavae evaluate --split {split} first"
            )
        name = path.name if short.count(path.name) == 1 else str(run.path)
        log = read_log(run.log) if run.log.is_file() else []
        data = run.read_json(run.provenance).get("data_sha256")
        results.append(Result(name, metrics[split], log, data))
    return results


def _load_images(run: RunFolder, split: str, model: DeltaVAE) -> tuple[Images | None, str]:
    # The first images of the data set that the configuration names, if they are still the same.
    config = run.read_config()
    if not isinstance(config.get("data"), str):
        return None, "The configuration names no data set"
    try:
        data = load_data(
            config["data"],
            size=config.get("size"),
            grey=bool(config.get("grey")),
            levels=config.get("levels"),
            data_dir=Path(config["data_dir"]) if config.get("data_dir") else None,
        )
    except (ValueError, OSError) as error:
        return None, f"The data set could not be loaded ({error})"
    trained_on = run.read_json(run.provenance).get("data_sha256", data.fingerprint)
    if data.fingerprint != trained_on or data.shape != model.decoder.event_shape:
        return None, "The data set is no longer the one of the training"
    part = data.train if split == "train" else data.test
    return part.images[:_SHOWN].copy(), ""


def _draw(
    run: _Run, seed: int, progress: Callable[[str, int, int], None] | None
) -> Samples | None:
    if not _is_image(run.model.decoder.event_shape):
        return None
    positions = run.model.decoder.positions

    def report(done: int) -> None:
        if progress is not None:
            progress(run.name, done, positions)

    generator = torch.Generator().manual_seed(seed)
    return draw_samples(run.model, run.images, generator=generator, progress=report)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3)


def _plot(figure: Figure, alt: str, caption: str = "") -> Picture:
    return Picture(figures.to_data_uri(figure), alt, caption, "plot")


def _pixels(image: Image.Image, alt: str, caption: str) -> Picture:
    return Picture(figures.to_data_uri(image), alt, caption, "pixels")


def _curves(results: Sequence[Result]) -> Picture | None:
    logs = {result.name: result.log for result in results if result.log}
    if not any("distortion_bits" in entry for log in logs.values() for entry in log):
        return None
    return _plot(
        figures.training_curves(logs), "Distortion and rates in training against the step"
    )


def _rates(results: Sequence[Result]) -> Picture | None:
    metrics = {result.name: result.metrics for result in results if result.has_latents}
    if not metrics:
        return None
    return _plot(
        figures.rates_bar(metrics),
        "Committed rate, rate, rate under the auxiliary prior and information of each run",
        "What is committed, what is paid, and between which bounds the information lies. Error "
        "bars: two standard errors.",
    )


def _originals(runs: Sequence[_Run]) -> Picture | None:
    for run in runs:
        if run.images is not None and _is_image(run.images.shape[1:]):
            grid = figures.wrap(run.images[:_SHOWN], 8)
            image = figures.image_grid(grid, run.model.decoder.likelihood.levels)
            return _pixels(image, "Images of the data set", "Originals, for comparison")
    return None


def _pictures(run: _Run, drawn: Samples | None) -> list[Picture]:
    if drawn is None or not _is_image(drawn.samples.shape[1:]):
        return []
    levels = run.model.decoder.likelihood.levels

    def grid(images: UInt8[np.ndarray, "r k c h w"]) -> Image.Image:
        return figures.image_grid(images, levels)

    source = {"aux": "z from the auxiliary prior", "model": "z from the model's prior"}
    told = "no latents" if drawn.prior is None else source[drawn.prior]
    image = grid(figures.wrap(drawn.samples, 8))
    pictures = [_pixels(image, f"Samples of {run.name}", f"Samples ({told})")]
    if drawn.decodings is not None:
        image, caption = grid(drawn.decodings), "Each row: many decodings of one z"
        if drawn.originals is not None:
            image = figures.beside(grid(drawn.originals[:, None]), image)
            caption += ", drawn from the posterior of the original on the left"
        pictures.append(_pixels(image, f"Decodings of fixed z of {run.name}", caption))
    if drawn.interpolations is not None and drawn.line_ends is not None:
        ends = drawn.line_ends
        image = figures.beside(grid(ends[:, :1]), grid(drawn.interpolations), grid(ends[:, 1:]))
        caption = "Each row: decodings on the line between the locations of two originals"
        pictures.append(_pixels(image, f"Interpolations of {run.name}", caption))
    return pictures


def _heatmap(run: _Run) -> Picture | None:
    latents, listed = run.model.latents, run.result.metrics.get("rate_terms_bits")
    if latents is None or listed is None:
        return None
    rate = np.asarray(listed, dtype=np.float64)
    committed = nats_to_bits(latents.committed_terms).numpy()
    if rate.shape != committed.shape:
        raise ValueError(
            f"{run.folder.metrics}: rate_terms_bits must have shape {committed.shape}, got "
            f"{rate.shape}: run deltavae evaluate again"
        )
    by_channel = rate.shape[1] == latents.d
    per = "latent step and channel" if by_channel else "latent step"
    return _plot(
        figures.rate_heatmap(rate, committed, by_channel=by_channel),
        f"Rate per {per} of {run.name}",
        f"Mean over the split: {rate.sum():.2f} bits per example, of which δ commits "
        f"{committed.sum():.2f}.",
    )


def _committed(runs: Sequence[_Run]) -> Picture | None:
    pairs = {run.name: run.model.latents for run in runs}
    points = {
        name: (latents.n, latents.alpha.tolist())
        for name, latents in pairs.items()
        if isinstance(latents, AR1 | LearnableAR1)
    }
    if not points:
        return None
    alt = "Committed rate per channel against α, with the channels of the runs as points"
    return _plot(figures.committed_rate_curve(points), alt)


def _provenance(run: _Run) -> str:
    return json.dumps(run.folder.read_json(run.folder.provenance), indent=2, ensure_ascii=False)


def _configuration(run: _Run) -> str:
    return to_yaml(run.folder.read_config())
