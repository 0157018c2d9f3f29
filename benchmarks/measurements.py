"""Write docs/measurements.md from the metrics of finished runs; no figure in it is typed by hand.

python benchmarks/measurements.py [--pictures] RUNS...   where a run of configs/GROUP/NAME.yaml
lies in GROUP/NAME-SEED; metrics and a thinned log are kept in benchmarks/measurements/ as JSON, so
that the page can be written again without the runs. With --pictures, samples and decodings of
fixed latents are drawn too, which takes minutes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltavae.figures import save_image_grid, to_svg, training_curves
from deltavae.run_folder import load
from deltavae.studies.analysis import thinned
from deltavae.training import read_log

DOCS = Path(__file__).parents[1] / "docs"
ASSETS = DOCS / "assets"
KEPT = Path(__file__).parent / "measurements"
ROWS = {
    "elbo_bpd": "ELBO, bits/dim (exact without latents)",
    "aux_elbo_bpd": "auxiliary bound, bits/dim",
    "aux_iwae_bpd": "importance-weighted auxiliary bound, bits/dim",
    "distortion_bits": "distortion, bits",
    "committed_rate_bits": "committed rate δ, bits",
    "rate_bits": "rate, bits",
    "aux_rate_bits": "rate under the auxiliary prior, bits",
    "mutual_information_bits": "information I(x;z), lower bound, bits",
    "active_units": "active units",
    "params": "parameters",
    "train_seconds": "training time, s",
    "steps": "optimiser steps",
}


def keep(run: Path) -> None:
    """Copy what the page needs of a run into the repository."""
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    origin = json.loads((run / "provenance.json").read_text())
    kept = {name: value for name, value in metrics.items() if name != "rate_terms_bits"}
    kept |= {key: origin[key] for key in ("steps", "seed", "commit", "data_sha256", "threads")}
    kept["train_seconds"] = round(kept["train_seconds"])
    kept["log"] = thinned(read_log(run / "log.csv"))
    text = json.dumps(kept, indent=2, sort_keys=True) + "\n"
    (KEPT / f"{run.parent.name}--{run.name}.json").write_text(text)


def draw(run: Path, count: int = 64, rows: int = 8, times: int = 8) -> None:
    """Draw samples and, with latents, several decodings of each of some latents; seed 0."""
    model, generator = load(run), torch.Generator().manual_seed(0)
    levels, start = model.decoder.likelihood.levels, ASSETS / f"{run.parent.name}--{run.name}"
    samples = model.sample(count, generator=generator)
    save_image_grid(samples.numpy(), levels, Path(f"{start}-samples.png"))
    z = model.sample_latents(rows, generator=generator)
    if z is not None:
        images = model.decode(z.repeat_interleave(times, dim=0), generator=generator)
        save_image_grid(images.numpy(), levels, Path(f"{start}-fixed.png"), columns=times)


def cell(values: list[dict[str, float | None]], name: str) -> str:
    """One run: value ± standard error over test examples. Several: the mean, and every seed."""
    numbers = [value[name] for value in values]
    if any(number is None for number in numbers):
        return "–"
    digits = 0 if all(float(number).is_integer() for number in numbers) else 4
    shown = []
    for value in values:
        error = value.get(f"{name}_se")
        shown.append(f"{value[name]:,.{digits}f}" + (f" ± {error:.{digits}f}" if error else ""))
    if len(set(shown)) == 1:
        return shown[0]
    return f"{np.mean(numbers):,.{digits}f} ({'; '.join(shown)})"


def page() -> str:
    """Return the page's text."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    logs: dict[str, dict[str, Any]] = {}
    for path in sorted(KEPT.glob("*.json")):
        group, name = path.stem.split("--")
        config, _, _ = name.rpartition("-")
        kept = json.loads(path.read_text())
        logs.setdefault(group, {})[name] = kept.pop("log", None)
        groups.setdefault(group, {}).setdefault(config, []).append(kept)
    text = (KEPT / "introduction.md").read_text()
    for group, configs in groups.items():
        text += f"\n## {group}\n\n" + (KEPT / f"{group}.md").read_text() + "\n"
        text += f"| test split | {' | '.join(configs)} |\n|---|{'--:|' * len(configs)}\n"
        for name, label in ROWS.items():
            cells = (cell(values, name) for values in configs.values())
            text += f"| {label} | " + " | ".join(cells) + " |\n"
        text += curves(group, logs[group]) + pictures(group)
    return text


def curves(group: str, logs: dict[str, Any]) -> str:
    """Plot the training curves of a group, where its logs were kept."""
    entries = {}
    for name, log in logs.items():
        if log is not None:
            rows = zip(*log.values(), strict=True)
            entries[name] = [
                {key: value for key, value in zip(log, row, strict=True) if value is not None}
                for row in rows
            ]
    if not entries:
        return ""
    (ASSETS / f"{group}-curves.svg").write_text(to_svg(training_curves(entries)))
    return f"\n![Training curves](assets/{group}-curves.svg)\n"


def pictures(group: str) -> str:
    """Show the pictures of a group that were drawn."""
    captions = {"samples": "samples", "fixed": "decodings of one z per row, z from p_aux"}
    text = ""
    for path in sorted(ASSETS.glob(f"{group}--*.png")):
        run, _, kind = path.stem.removeprefix(f"{group}--").rpartition("-")
        text += f"\n{run}, {captions[kind]}:\n\n![{run}, {captions[kind]}](assets/{path.name})\n"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--pictures", action="store_true", help="draw samples too")
    options = parser.parse_args()
    for run in options.runs:
        keep(run)
        if options.pictures:
            draw(run)
    (DOCS / "measurements.md").write_text(page())
