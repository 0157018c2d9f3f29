"""`describe`: what a model costs and sees, and its committed rate."""

import json
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from deltavae.cli.specified import specified_model
from deltavae.data import Layout, data_layout
from deltavae.data.layout import PUBLISHED
from deltavae.describe import Cost, costs, pixels_seen, rows_seen
from deltavae.latents import AR1, Latents, LearnableAR1
from deltavae.model import DeltaVAE
from deltavae.run_folder import instantiate
from deltavae.units import nats_to_bits

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_TRAINING = 3  # forward, and backward to features and to weights, each of which costs as much
_NAMES = {
    "encoder": "encoder",
    "latents": "latents",
    "decoder": "decoder",
    "aux_prior": "auxiliary prior",
    "total": "total",
}

Figures = dict[str, Any]


def describe(options: Figures) -> int:
    """Print what the model of a configuration costs and sees."""
    layout = _layout(options)
    shape, levels = (layout.shape, layout.levels) if layout else ((0, 0, 0), 0)
    spec = specified_model(options, shape, levels)  # a complete model needs neither
    model = instantiate(spec, trust=options["trust"])
    if not isinstance(model, DeltaVAE):
        raise ValueError("model must be a deltavae.model.DeltaVAE")
    if options["precision"] == "64-true":
        model.double()
    figures = {
        "image_shape": list(model.decoder.event_shape),
        "levels": model.decoder.likelihood.levels,
        **_parts(model, options),
        **_rate(model),
        **_seen(spec["init_args"], model.latents, options["trust"]),
    }
    figures |= _run(figures, layout, options)
    if options["json"]:
        print(json.dumps(figures, indent=2))
    else:
        _show(figures)
    return 0


def _layout(options: Figures) -> Layout | None:
    if options["model"] is not None and options["data"] not in PUBLISHED:
        return None  # a run's data may lie elsewhere by now
    if options["data"] is None:
        raise ValueError("--data: missing: name a configuration, a run folder or a data set")
    names = ("size", "grey", "levels", "data_dir", "holdout")
    return data_layout(options["data"], **{name: options[name] for name in names})


def _parts(model: DeltaVAE, options: Figures) -> Figures:
    found = costs(model, _AUTOCAST.get(options["precision"]))
    total = reduce(add, found.values(), Cost(0, 0, 0))
    classes = {name: type(getattr(model, name)).__name__ for name in found}
    parts = {name: {"class": classes[name], **asdict(cost)} for name, cost in found.items()}
    return {
        "precision": options["precision"],
        "parts": {**parts, "total": asdict(total)},
        "training_flops": _TRAINING * total.forward_flops,
    }


def _rate(model: DeltaVAE) -> Figures:
    latents = model.latents
    alpha = latents.alpha.tolist() if isinstance(latents, AR1 | LearnableAR1) else None
    steps, channels = model.decoder.latent_shape or (None, None)
    return {
        "latents": None if latents is None else type(latents).__name__,
        "latent_steps": steps,
        "latent_channels": channels,
        "committed_rate_bits": None if latents is None else nats_to_bits(latents.committed_rate),
        "committed_rate_nats": None if latents is None else latents.committed_rate,
        "floor": None if latents is None else latents.floor,
        "mean_rate_floor_bits": None
        if latents is None or latents.floor == "example"
        else nats_to_bits(latents.mean_rate_floor),
        "alpha": alpha,
        "knobs": None if latents is None else latents.summary,
    }


def _seen(parts: Figures, latents: Latents | None, trust: bool) -> Figures:
    pixels = pixels_seen(parts["decoder"], trust=trust)
    rows = rows_seen(parts["encoder"], latents, trust=trust) if parts.get("encoder") else None
    return {
        "decoder_sees": None if pixels is None else asdict(pixels),
        "encoder_sees": None if rows is None else asdict(rows),
    }


def _run(figures: Figures, layout: Layout | None, options: Figures) -> Figures:
    # The whole training: steps as `fit` counts them; bytes of weights, gradients, AdamW's two
    # moments and the average, of the copies for autocast, and of the activations of a batch.
    total, precision = figures["parts"]["total"], options["precision"]
    copies = 5 if options["ema_decay"] else 4
    state = total["parameters"] * copies * (8 if precision == "64-true" else 4)
    casts = 2 * total["parameters"] if precision in _AUTOCAST else 0
    images = layout.training_images if layout else None
    batch = min(options["batch_size"], images or options["batch_size"])
    steps = max(1, round(options["epochs"] * (images // batch))) if images else None
    return {
        "batch_size": batch,
        "training_images": images,
        "epochs": options["epochs"],
        "steps": steps,
        "run_flops": steps * batch * figures["training_flops"] if steps else None,
        "state_bytes": state,
        "step_bytes": state + casts + batch * total["activation_bytes"],
    }


def _show(figures: Figures) -> None:
    shape, levels, precision = (figures[k] for k in ("image_shape", "levels", "precision"))
    print(f"images of shape {tuple(shape)}, {levels} levels; precision {precision}")
    table = Table(box=box.HORIZONTALS, pad_edge=False)  # as wide as 80 columns allow
    for name in ("part", "class", "parameters", "forward FLOPs", "activations"):
        words = name in ("part", "class")
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    for name, part in figures["parts"].items():
        table.add_row(
            _NAMES[name],
            part.get("class", ""),
            f"{part['parameters']:,}",
            _decimal(part["forward_flops"]),
            _binary(part["activation_bytes"]),
            end_section=name == list(figures["parts"])[-2],
        )
    Console().print(table)
    print("FLOPs and activations per image; activations are what a training step keeps")
    for line in (*_rate_lines(figures), *_seen_lines(figures), *_run_lines(figures)):
        print(line)


def _rate_lines(figures: Figures) -> list[str]:
    n, d = figures["latent_steps"], figures["latent_channels"]
    if figures["latents"] is None:
        return [
            "no latents"
            if n is None
            else f"no latents: the decoder reads z = 0 (n = {n}, d = {d})"
        ]
    bits, nats = figures["committed_rate_bits"], figures["committed_rate_nats"]
    knobs = f", {figures['knobs']}" if figures["knobs"] else ""
    if figures["floor"] == "mean":
        floor = figures["mean_rate_floor_bits"]
        return [
            f"no committed rate; the mean over a training batch is at least {floor:.3f} bits "
            f"(n = {n}, d = {d}){knobs}"
        ]
    return [f"committed rate δ = {bits:.3f} bits = {nats:.3f} nats (n = {n}, d = {d}){knobs}"]


def _seen_lines(figures: Figures) -> list[str]:
    lines = []
    if pixels := figures["decoder_sees"]:
        if pixels["seen"] == pixels["earlier"]:
            lines.append("the decoder sees all earlier pixels (the middle pixel of the last row)")
        else:
            lines.append(
                f"the decoder sees {pixels['seen']:,} of {pixels['earlier']:,} earlier pixels, "
                f"{pixels['rows_above']} rows up, {pixels['columns_left']} columns to the left, "
                f"{pixels['columns_right']} to the right (the middle pixel of the last row)"
            )
    if rows := figures["encoder_sees"]:
        lines.append(
            f"the first latent step is made from {rows['first_step']} of {rows['rows']} rows, "
            f"the last from {rows['last_step']}"
        )
    return lines


def _run_lines(figures: Figures) -> list[str]:
    each = f"training: {_decimal(figures['training_flops'])} per image ({_TRAINING} × forward)"
    if figures["steps"]:
        each += (
            f"; {figures['steps']:,} steps of {figures['batch_size']} images "
            f"({figures['epochs']:g} epochs): {_decimal(figures['run_flops'])}"
        )
    return [
        each,
        f"memory: {_binary(figures['state_bytes'])} for weights, gradients and optimiser, "
        f"at least {_binary(figures['step_bytes'])} in a step of {figures['batch_size']} images",
    ]


def _decimal(flops: int) -> str:
    for prefix, unit in zip("EPTGMk", (1e18, 1e15, 1e12, 1e9, 1e6, 1e3), strict=True):
        if flops >= unit:
            return f"{flops / unit:.3g} {prefix}FLOP"
    return f"{flops} FLOP"


def _binary(count: int) -> str:
    for prefix, unit in zip("GMK", (2**30, 2**20, 2**10), strict=True):
        if count >= unit:
            return f"{count / unit:.4g} {prefix}iB"
    return f"{count} B"
