"""Write the tables of docs/paper-models.md from `deltavae describe --json`: none is typed by hand.

python benchmarks/paper_models.py   replaces what stands between the marks of each table.
"""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

from deltavae.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "paper-models.md"
CONFIGS = (
    "l6-h128-a0-low",
    "l8-h128-a2-low",
    "l8-h128-a2-high",
    "enc-l20-h128-dec-l30-h256-a6-low",
    "table1-cifar10",
    "table1-imagenet32",
)
# Dense bfloat16 without sparsity, as the manufacturer's data sheets give it.
PEAK = {"A100": 312e12, "H100 SXM": 989e12}
UTILISATION = 0.3
RECOMPUTED = 4 / 3  # a second forward pass beside one forward and two of backward

Figures = dict[str, Any]


def described(name: str) -> Figures:
    """Return what `describe` says of a configuration."""
    file = ROOT / "configs" / "paper" / f"{name}.yaml"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main(["describe", str(file), "--json"])
    if status:
        raise SystemExit(status)
    checkpointing = "checkpointing: true" in file.read_text()
    return {**json.loads(printed.getvalue()), "checkpointing": checkpointing}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lay out a table, numbers to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rates(found: dict[str, Figures]) -> str:
    """Committed rates: n, d, α, δ."""
    rows = []
    for name, each in found.items():
        bits, dims = each["committed_rate_bits"], 1
        for side in each["image_shape"]:
            dims *= side
        steps, channels, alpha = (each[k] for k in ("latent_steps", "latent_channels", "alpha"))
        ladder = f"{min(alpha):g} to {max(alpha):g}"
        cells = [str(steps), str(channels), ladder, f"{bits:.3f}", f"{bits / dims:.4f}"]
        rows.append([f"`{name}`", *cells])
    return table(["configuration", "n", "d", "α", "δ, bits", "δ, bits/dim"], rows)


def sizes(found: dict[str, Figures]) -> str:
    """Parameters, FLOPs, activations and receptive fields."""
    rows = []
    for name, each in found.items():
        parts = [each["parts"][part] for part in ("encoder", "decoder", "total")]
        millions = " / ".join(f"{part['parameters'] / 1e6:.1f}" for part in parts)
        flops = " / ".join(f"{part['forward_flops'] / 1e9:.1f}" for part in parts)
        kept = " / ".join(f"{part['activation_bytes'] / 2**20:.1f}" for part in parts)
        sees, made = each["decoder_sees"], each["encoder_sees"]
        pixels = "all" if sees["seen"] == sees["earlier"] else f"{sees['seen']}"
        rows.append([f"`{name}`", millions, flops, kept, pixels, f"{made['first_step']}"])
    head = ["configuration", "parameters, M", "forward GFLOP per image"]
    more = ["activations, MiB per image", "earlier pixels seen, of 1,008", "rows z₁ is made from"]
    return table([*head, *more], rows)


def hours(each: Figures, device: str) -> float:
    """Estimate the hours of a full run on one device."""
    factor = RECOMPUTED if each["checkpointing"] else 1.0
    return float(each["run_flops"]) * factor / (PEAK[device] * UTILISATION) / 3600


def runs(found: dict[str, Figures]) -> str:
    """What a full run takes."""
    rows = []
    for name, each in found.items():
        numbers = [
            f"{each['training_flops'] / 1e9:.1f}",
            f"{each['training_images']:,}",
            f"{each['epochs']:g}",
            f"{each['batch_size']}",
            f"{each['steps']:,}",
            f"{each['run_flops'] / 1e18:.2f}",
            *(f"{hours(each, device):,.1f}" for device in PEAK),
            f"{each['step_bytes'] / 2**30:.1f}",
        ]
        rows.append([f"`{name}`", *numbers])
    head = ["configuration", "training GFLOP per image", "images per epoch", "epochs", "batch"]
    estimates = [f"{device} hours, estimated" for device in PEAK]
    return table([*head, "steps", "EFLOP", *estimates, "GiB per step, at least"], rows)


def arithmetic(found: dict[str, Figures]) -> str:
    """One estimate spelled out."""
    name = "enc-l20-h128-dec-l30-h256-a6-low"
    each = found[name]
    device, peak = next(iter(PEAK.items()))
    seen = each["steps"] * each["batch_size"]
    return (
        f"For `{name}` on one {device}: {each['training_flops']:.3g} FLOP per image × "
        f"{each['steps']:,} steps of {each['batch_size']} images = {seen:,} images "
        f"({each['epochs']:g} epochs) = {each['run_flops']:.3g} FLOP; × 4/3 for what "
        f"checkpointing computes again; ÷ ({peak:.3g} FLOP/s × {UTILISATION:g}) = "
        f"{hours(each, device) * 3600:,.0f} s = {hours(each, device):.1f} h."
    )


def page(text: str) -> str:
    """Return the page with its tables written anew."""
    found = {name: described(name) for name in CONFIGS}
    for write in (rates, sizes, runs, arithmetic):
        mark = write.__name__
        begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        new = f"{begin}\n\n{write(found)}\n\n{end}"
        text, count = re.subn(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{PAGE}: must hold the marks of {mark} once, got {count}")
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
