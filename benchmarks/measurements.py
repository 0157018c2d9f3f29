"""Write docs/measurements.md from the metrics of finished runs; nothing in it is typed by hand.

python benchmarks/measurements.py RUNS...   where a run of configs/GROUP/NAME.yaml lies in
GROUP/NAME-SEED; their metrics are kept in benchmarks/measurements/ as JSON, so that the page can
be written again without the runs.
"""

import json
import sys
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[1] / "docs"
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
    text = json.dumps(kept, indent=2, sort_keys=True) + "\n"
    (KEPT / f"{run.parent.name}--{run.name}.json").write_text(text)


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
    groups: dict[str, dict[str, list[dict[str, float | None]]]] = {}
    for path in sorted(KEPT.glob("*.json")):
        group, name = path.stem.split("--")
        config, _, _ = name.rpartition("-")
        groups.setdefault(group, {}).setdefault(config, []).append(json.loads(path.read_text()))
    text = (KEPT / "introduction.md").read_text()
    for group, configs in groups.items():
        text += f"\n## {group}\n\n" + (KEPT / f"{group}.md").read_text() + "\n"
        text += f"| test split | {' | '.join(configs)} |\n|---|{'--:|' * len(configs)}\n"
        for name, label in ROWS.items():
            cells = (cell(values, name) for values in configs.values())
            text += f"| {label} | " + " | ".join(cells) + " |\n"
    return text


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        keep(Path(argument))
    (DOCS / "measurements.md").write_text(page())
