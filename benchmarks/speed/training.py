"""Benchmarks of the training step: share of a matrix product's speed, recipes, latents, memory."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from speed.counting import LiveMemory, count_flops, operators
from speed.measured import Measured, Row, Settings, parameters
from speed.recipes import KINDS, NAIVE, Recipe, Step, stack_step, training_step
from speed.timing import interleave, ratio

PRODUCT = 1024  # side of the square matrices whose product is the yardstick
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NAMES = {
    "channels_last": "channels_last",
    "cropped": "cropped kernels",
    "fused_attention": "scaled_dot_product_attention",
    "fused_adamw": "fused AdamW",
}
SLOW = {  # what the best recipe of a network is held against, beside everything off
    "kernel 3": "float32, no cropped kernels, eager",
    "step": "float32, no scaled_dot_product_attention, eager",
}
MEBI = 2**20


def stack(settings: Settings) -> Measured:
    """Time the gated stack's forward and backward pass under every recipe."""
    network = settings.network("GatedPixelCNN")
    recipes = _recipes(settings, ("bfloat16", "channels_last", "cropped"))
    recipes[SLOW["kernel 3"]] = _eager().without("cropped")
    make = {
        kernel: partial(stack_step, network=network, kernel_size=kernel, batch=settings.batch)
        for kernel in (3, 5)
    }
    cases = {f"kernel 3, {name}": make[3](recipe) for name, recipe in recipes.items()}
    for name in _bases(recipes):
        cases[f"kernel 5, {name}"] = make[5](recipes[name])
    facts = {f"kernel {kernel}": _flops(partial(make[kernel], _eager())) for kernel in (3, 5)}
    return _training(settings, cases, facts)


def stack_rows(measured: Measured) -> list[Row]:
    """Rows of `stack`."""
    targets = {f"kernel {k}, {kind}": f"stack-{kind}" for k in (3, 5) for kind in TYPES}
    return [*_shares(measured, targets), *_off(measured, "kernel 3", "stack-recipe")]


def gated(settings: Settings) -> Measured:
    """Time a whole training step of GatedPixelCNN."""
    return _whole(settings, "GatedPixelCNN", ("bfloat16", "channels_last", "fused_adamw"))


def snail(settings: Settings) -> Measured:
    """Time a whole training step of PixelSNAIL."""
    off = ("bfloat16", "channels_last", "fused_attention", "fused_adamw")
    return _whole(settings, "PixelSNAIL", off)


def gated_rows(measured: Measured) -> list[Row]:
    """Rows of `gated`."""
    return [*_shares(measured, {}), *_off(measured, "step", None)]


def snail_rows(measured: Measured) -> list[Row]:
    """Rows of `snail`."""
    return [*_shares(measured, {}), *_off(measured, "step", "snail-recipe")]


def latents(settings: Settings) -> Measured:
    """Time a training step with latents and of the decoder alone."""
    full = Recipe().without("compiled")
    recipes = {"float32, eager": full.without("bfloat16"), "bfloat16, eager": full}
    cases: dict[str, Step] = {}
    facts: dict[str, float] = {}
    for kind in KINDS:
        network = settings.network(kind)
        model, alone = network.model(True), network.model(False)
        facts[f"{kind}: encoder"] = encoder = parameters(model.encoder)
        facts[f"{kind}: decoder alone"] = decoder = parameters(alone.decoder)
        assert 3 * encoder <= decoder, f"{kind}: {encoder} parameters against {decoder}"
        for name, recipe in recipes.items():
            for with_latents, what in ((True, "with latents"), (False, "alone")):
                step = training_step(recipe, network, settings.batch, with_latents)
                cases[f"{kind}, {name}: {what}"] = step
    return Measured(interleave(cases, settings.repetitions, settings.least), facts)


def latents_rows(measured: Measured) -> list[Row]:
    """Rows of `latents`."""
    rows = []
    for name in measured.seconds:
        case, what = name.split(": ")
        if what == "with latents":
            figure = ratio(measured.seconds[name], measured.seconds[f"{case}: alone"])
            rows.append(Row("step time over the decoder's alone", case, figure, "×", "latents"))
    for kind in KINDS:
        share = measured.facts[f"{kind}: encoder"] / measured.facts[f"{kind}: decoder alone"]
        title = "parameters of the encoder over the decoder's"
        rows.append(Row.exact(title, kind, share, "×"))
    return rows


def memory(settings: Settings) -> Measured:
    """Measure time and live memory of a training step with and without checkpointing."""
    cases: dict[str, Step] = {}
    facts: dict[str, float] = {}
    recipe = Recipe().without("compiled")
    for kind in KINDS:
        for checkpointing in (False, True):
            name = f"{kind}, {'checkpointing' if checkpointing else 'plain'}"
            network = settings.network(kind, checkpointing=checkpointing)
            cases[name] = step = training_step(recipe, network, settings.batch)
            step()  # the optimiser's state is there from now on
            with LiveMemory() as follower:
                before = follower.live
                step()
            facts[name] = follower.peak - before
    return Measured(interleave(cases, settings.repetitions, settings.least), facts)


def memory_rows(measured: Measured) -> list[Row]:
    """Rows of `memory`."""
    most, less = [], []
    for kind in KINDS:
        names = f"{kind}, plain", f"{kind}, checkpointing"
        used = [measured.facts[name] for name in names]
        most += [
            Row.exact("most memory of a step, MiB", name, size / MEBI, "")
            for name, size in zip(names, used, strict=True)
        ]
        title = "with checkpointing over without"
        less.append(Row.exact(title, f"{kind}: memory", used[1] / used[0], "×"))
        figure = ratio(measured.seconds[names[1]], measured.seconds[names[0]])
        less.append(Row(title, f"{kind}: time", figure, "×"))
    return most + less


def _eager() -> Recipe:
    return Recipe().without("compiled", "bfloat16")


def _recipes(settings: Settings, off: tuple[str, ...]) -> dict[str, Recipe]:
    # Everything off, everything on but one in turn, everything on. Compilation takes minutes, so
    # that only what has nothing else switched off is compiled.
    full = Recipe().without("compiled")
    recipes = {"naive": NAIVE}
    for name in off:
        kind = "float32" if name == "bfloat16" else f"bfloat16, no {NAMES[name]}"
        recipes[f"{kind}, eager"] = full.without(name)
    recipes["bfloat16, eager"] = full
    if settings.compile:
        recipes["float32, compiled"] = Recipe().without("bfloat16")
        recipes["bfloat16, compiled"] = Recipe()
    return recipes


def _bases(names: Mapping[str, object]) -> list[str]:
    # The full recipes in either number format, eager and compiled.
    return [name for name in names if name.endswith(("eager", "compiled")) and ", no " not in name]


def _whole(settings: Settings, kind: str, off: tuple[str, ...]) -> Measured:
    network = settings.network(kind)
    recipes = _recipes(settings, off)
    if "fused_attention" in off:
        recipes[SLOW["step"]] = _eager().without("fused_attention")
    cases = {
        f"step, {name}": training_step(recipe, network, settings.batch)
        for name, recipe in recipes.items()
    }
    flops = _flops(partial(training_step, _eager(), network, settings.batch))
    return _training(settings, cases, {"step": flops})


def _training(settings: Settings, cases: Mapping[str, Step], facts: dict[str, float]) -> Measured:
    profiles = {
        name: operators(step)
        for name, step in cases.items()
        if name in _bases(cases) and name.endswith("eager")
    }
    products = {f"mm {name}": product(dtype) for name, dtype in TYPES.items()}
    seconds = interleave({**products, **cases}, settings.repetitions, settings.least)
    return Measured(seconds, facts, profiles)


def product(dtype: torch.dtype) -> Step:
    """Return the yardstick: a product of two square matrices."""
    a, b = torch.randn(2, PRODUCT, PRODUCT).to(dtype)
    return partial(torch.mm, a, b)


def _flops(make: Callable[[], Step]) -> int:
    return count_flops(make())


def _shares(measured: Measured, targets: Mapping[str, str]) -> list[Row]:
    # Useful operations per second over those of a matrix product in the same number format.
    rows = []
    for name in _bases(measured.seconds):
        what, kind, _ = name.split(", ")
        factor = measured.facts[what] / (2 * PRODUCT**3)
        figure = ratio(measured.seconds[f"mm {kind}"], measured.seconds[name], factor)
        title = f"share of the speed of torch.mm, {PRODUCT} × {PRODUCT}, in the same format"
        rows.append(Row(title, name, figure, "%", targets.get(f"{what}, {kind}")))
    return rows


def _off(measured: Measured, what: str, target: str | None) -> list[Row]:
    # Every case of one network against the full recipe, and the best of them against none.
    seconds = {
        name.removeprefix(f"{what}, "): times
        for name, times in measured.seconds.items()
        if name.startswith(f"{what}, ")
    }
    base = seconds["bfloat16, eager"]
    rows = [
        Row(f"{what}: time over that of bfloat16, eager", name, ratio(times, base), "×")
        for name, times in seconds.items()
        if times is not base and name != "naive"
    ]
    best = min(_bases(seconds), key=lambda name: float(np.median(seconds[name])))
    slow = {"naive": "float32, every optimisation off", SLOW[what]: SLOW[what]}
    for name in [name for name in slow if name in seconds]:
        figure = ratio(seconds[name], seconds[best])
        title = f"{what}: speed of the best recipe ({best})"
        rows.append(Row(title, f"over {slow[name]}", figure, "×", target))
    return rows
