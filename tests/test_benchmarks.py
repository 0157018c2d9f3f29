"""The arithmetic of the benchmarks, and every one of them at a size that says nothing."""

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch.utils.checkpoint import checkpoint

from deltavae.nn import GatedStack
from deltavae.run_folder import instantiate
from deltavae.units import nats_to_bpd
from runs import tiny_data, tiny_specification, write_run

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
performance, bf16 = importlib.import_module("performance"), importlib.import_module("bf16")
counting, drawing, measured, page, precision, recipes, reference, targets, timing, training = (
    importlib.import_module(f"speed.{name}")
    for name in (
        "counting",
        "drawing",
        "measured",
        "page",
        "precision",
        "recipes",
        "reference",
        "targets",
        "timing",
        "training",
    )
)
EAGER = recipes.Recipe().without("compiled", "bfloat16")
SMOKE = dataclasses.replace(
    measured.QUICK,
    side=2,
    channels=8,
    gated_layers=2,
    snail_layers=4,
    batch=2,
    batches=(1, 16, 64),
    sides=(2, 3),
    widths=(4, 8),
    depths=(1, 2),
    growth_side=2,
    growth_channels=4,
    growth_layers=1,
    repetitions=2,
    least=0.0,
)


def conv(positions, kernel, inputs, outputs):
    """Operations of a convolution that gives `positions` pixels."""
    return 2 * positions * kernel * inputs * outputs


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_operations_of_the_gated_stack_are_those_of_its_cropped_kernels(kernel_size):
    side, c, layers, batch = 5, 6, 2, 3
    network = recipes.Network("GatedPixelCNN", side, c, layers)
    step = recipes.stack_step(EAGER, network, kernel_size, batch)
    n, half = batch * side**2, kernel_size // 2 + 1
    embed = conv(n, half * kernel_size, 6, c) + conv(n, half, 6, c)
    layer = conv(n, half * kernel_size, c, 2 * c) + conv(n, half, c, 2 * c)
    layer += conv(n, 1, 2 * c, 2 * c) + conv(n, 1, c, c)
    # Backward: the gradients of the weights, and of every input but the image.
    assert counting.count_flops(step) == 2 * embed + 3 * layers * layer


def test_operations_of_causal_attention_count_each_earlier_pixel_once():
    b, heads, p, e, f = 2, 3, 7, 4, 5
    q, k = (torch.randn(b, heads, p, e, requires_grad=True) for _ in range(2))
    v = torch.randn(b, heads, p, e, requires_grad=True)

    def attend(**options):
        F.scaled_dot_product_attention(q, k, v, **options).sum().backward()

    pairs = p * (p + 1) // 2
    causal = counting.count_flops(lambda: attend(is_causal=True))
    assert causal == 3 * b * heads * pairs * 2 * 2 * e
    assert counting.count_flops(attend) == 3 * b * heads * p * p * 2 * 2 * e
    assert counting._attention((b, heads, p, e), (b, heads, 9, e), (b, heads, 9, f)) == (
        2 * b * heads * p * 9 * (e + f)
    )


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_masked_stack_computes_what_the_cropped_one_does(kernel_size):
    torch.manual_seed(0)
    cropped = GatedStack(3, 6, 3, kernel_size).double()
    masked = reference.MaskedGatedStack(cropped)
    images = [torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    images[1].data.copy_(images[0].data)
    outputs = [stack(x) for stack, x in zip((cropped, masked), images, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(*(x.grad for x in images), rtol=1e-11, atol=1e-11)
    full = masked.layers[1].vertical
    rows = kernel_size // 2 + 1
    gradient = cropped.layers[1].vertical.weight.grad
    torch.testing.assert_close(full.weight.grad[:, :, :rows], gradient, rtol=1e-10, atol=1e-10)
    assert (full.weight.grad[:, :, rows:] == 0).all()


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": True}])
def test_naive_attention_is_attention(options):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 4, dtype=torch.float64) for _ in range(3))
    if "attn_mask" in options:
        options = {"attn_mask": (torch.rand(6, 6) < 0.5) | torch.eye(6, dtype=torch.bool)}
    fused = F.scaled_dot_product_attention(q, k, v, **options)
    naive = reference.naive_attention(q, k, v, **options)
    torch.testing.assert_close(naive, fused, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("off", ["channels_last", "fused_attention", "fused_adamw", "bfloat16"])
def test_optimisation_changes_how_but_not_what_is_computed(off):
    network = recipes.Network("PixelSNAIL", 4, 8, 2)
    x, params = recipes.images(2, 4), []
    for recipe in (EAGER, recipes.Recipe().without("compiled").without(off)):
        with recipe.active():
            channels_first = torch.channels_last is torch.contiguous_format
            assert channels_first == (off == "channels_last" and recipe is not EAGER)
            naive = F.scaled_dot_product_attention is reference.naive_attention
            assert naive == (off == "fused_attention" and recipe is not EAGER)
            params.append(network.model(False).decoder(x, None).float())
    torch.testing.assert_close(*params, rtol=0.05, atol=0.05)
    assert torch.channels_last is not torch.contiguous_format


def test_live_memory_is_that_of_the_tensors_that_are_held():
    x = torch.randn(1000, requires_grad=True)
    with counting.LiveMemory() as follower:
        y = x.exp()  # its result is kept for the backward pass
        assert follower.live == 4000
        z = y.view(10, 100).exp()
        assert follower.live == 8000
        del y
        assert follower.live == 8000  # z's graph holds it
        del z
        assert follower.live == 0
        assert (x.detach() + 1).sum() != 0  # x itself was there before
    assert follower.peak == 8000


def test_live_memory_sees_what_checkpointing_saves():
    x = torch.randn(1000, requires_grad=True)

    def chain(t):
        for _ in range(10):
            t = t.exp().neg()  # exp keeps its result, neg nothing
        return t

    held = []
    for run in (chain, lambda t: checkpoint(chain, t, use_reentrant=False)):
        with counting.LiveMemory() as follower:
            result = run(x)
            held.append(follower.live)
            del result
    assert held == [4000 * 11, 4000]


def test_ratio_is_the_median_over_repetitions_of_paired_times():
    noise = [1.0, 7.0, 0.5, 2.0, 100.0]  # the machine's moods strike both alike
    below = [3.0 * mood for mood in noise]
    figure = timing.ratio([6.0 * mood for mood in noise], below, factor=0.5)
    assert dataclasses.astuple(figure) == pytest.approx((1.0, 1.0, 1.0))
    figure = timing.ratio([1, 2, 3, 4, 50], [1, 1, 1, 1, 1])
    assert dataclasses.astuple(figure) == (3.0, 2.0, 4.0)


def test_slope_is_the_exponent():
    x = [8, 16, 32, 64]
    assert timing.slope(x, [3.0 * s**2.5 for s in x]) == pytest.approx(2.5)


def test_every_case_takes_its_turn_in_every_repetition():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "abc"}
    taken = timing.interleave(cases, 3, least=0.0)
    assert order[6:] == list("abc" + "bca" + "cab")  # after two calls each to warm up
    assert {name: len(times) for name, times in taken.items()} == dict.fromkeys("abc", 3)


def test_share_of_the_products_speed():
    """10 times the operations of the product in 20 times its time is half its speed."""
    product = 2 * training.PRODUCT**3
    seconds = {
        "mm float32": [1.0, 2.0],
        "mm bfloat16": [0.1, 0.2],
        "kernel 3, naive": [60.0, 120.0],
        "kernel 3, float32, eager": [20.0, 40.0],
        "kernel 3, float32, no cropped kernels, eager": [25.0, 50.0],
        "kernel 3, bfloat16, no cropped kernels, eager": [10.0, 20.0],
        "kernel 3, bfloat16, eager": [5.0, 10.0],
    }
    rows = training.stack_rows(measured.Measured(seconds, {"kernel 3": 10.0 * product}))
    found = {(row.label, row.unit): row for row in rows}
    fast = found["kernel 3, float32, eager", "%"]
    assert (fast.figure.value, fast.target) == (pytest.approx(0.5), "stack-float32")
    assert found["kernel 3, bfloat16, eager", "%"].figure.value == pytest.approx(0.2)
    best = found["over float32, every optimisation off", "×"]
    assert (best.figure.value, best.target) == (pytest.approx(12.0), "stack-recipe")
    best = found["over float32, no cropped kernels, eager", "×"]
    assert (best.figure.value, best.target) == (pytest.approx(5.0), "stack-recipe")
    assert found["float32, eager", "×"].figure.value == pytest.approx(4.0)
    assert found["bfloat16, no cropped kernels, eager", "×"].figure.value == pytest.approx(2.0)


def test_sampling_is_counted_in_forward_passes_and_plain_sampling_multiplied_up():
    name = "PixelSNAIL, latents, batch 16"
    seconds = {f"{name}: forward": [2.0], f"{name}: sampling": [8.0], f"{name}: plain": [5.0]}
    facts = {"pixels": 64 * drawing.PLAIN_PIXELS}
    passes, plain = drawing.sampling_rows(measured.Measured(seconds, facts))
    assert (passes.figure.value, passes.target) == (4.0, "sampling-snail")
    assert plain.figure.value == pytest.approx(5.0 * 64 / 8.0)


def test_verdicts():
    speed = targets.Target("", 2.0, 2.5, at_most=False)
    cost = targets.Target("", None, 3.0, at_most=True)
    assert [speed.verdict(v) for v in (1.9, 2.0, 2.6)] == ["not reached", "sensible", "goal"]
    assert [cost.verdict(v) for v in (2.9, 3.1)] == ["goal", "not reached"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with every benchmark at the smallest size."""
    folder, threads = tmp_path_factory.mktemp("performance"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performance, "pin", lambda: None)  # the other tests keep their cores
        performance.measure(list(page.BENCHMARKS), SMOKE, folder, quick=True)
    assert torch.get_num_threads() == threads
    return folder


@pytest.mark.parametrize("name", list(page.BENCHMARKS))
def test_benchmark_keeps_every_repetition_and_gives_finite_figures(name, kept):
    content = json.loads((kept / f"{name}.json").read_text())
    found = page.read(kept)[name].measured
    turns = 1 if name == "growth" else SMOKE.repetitions
    assert {len(times) for times in found.seconds.values()} == {turns}
    assert {"date", "machine", "commit", "torch", "settings"} <= set(content["origin"])
    rows = page.BENCHMARKS[name].rows(found)
    figures = [x for row in rows for x in dataclasses.astuple(row.figure)]
    assert np.isfinite(figures).all()
    if name != "growth":
        assert min(figures) > 0
    for shares in found.profiles.values():
        assert math.fsum(shares.values()) == pytest.approx(1.0)


def test_page_has_every_row_and_every_target(kept, tmp_path):
    performance.write_page(kept, tmp_path)
    text = (tmp_path / "performance.md").read_text()
    for name, value in page.read(kept).items():
        assert f"![{page.BENCHMARKS[name].title}](assets/performance-{name}.svg)" in text
        assert (tmp_path / "assets" / f"performance-{name}.svg").read_text().startswith("<?xml")
        for row in page.BENCHMARKS[name].rows(value.measured):
            line, *column = row.label.split(": ")
            cells = [part for part in text.splitlines() if part.startswith(f"| {line} |")]
            assert any(f"| {page.shown(row.figure, row.unit)} |" in part for part in cells)
            assert not column or f"| {column[0]} |" in text
    asked = text[text.index("## What was asked for") :].split("\n\n")[1]
    for key, target in targets.TARGETS.items():
        lines = [line for line in asked.splitlines() if line.startswith(f"| {target.what} |")]
        assert lines
        assert ("not measured" in lines[0]) == (key == "sampling-gated-one-compiled")


def test_encoders_of_the_benchmarks_have_at_most_a_third_of_the_decoders_parameters():
    for kind in ("GatedPixelCNN", "PixelSNAIL"):
        network = measured.Settings().network(kind)
        decoder = measured.parameters(network.decoder(latents=False))
        encoder = measured.parameters(network.encoder(2 * recipes.LATENT_CHANNELS))
        assert 3 * encoder <= decoder
    gated = measured.Settings().network("GatedPixelCNN").decoder(latents=False)
    assert 0.4e6 < measured.parameters(gated) < 0.6e6  # what the targets of sampling speak of


def test_mean_and_interval_are_those_of_student():
    values = [0.3, -0.1, 0.2, 0.05, 0.4]
    found, interval = precision.mean(values), stats.ttest_1samp(values, 0).confidence_interval()
    assert found.value == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(stats.sem(values))
    assert found.value + found.half_width == pytest.approx(interval.high)


@pytest.mark.parametrize("latents", ["AR1", None])
def test_both_formats_are_given_the_same_weights_and_noise(latents):
    torch.manual_seed(0)
    model, data = instantiate(tiny_specification(latents)), tiny_data(10)
    bounds = precision.compare(model, data.test.images, batch_size=4)
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(count, 4, 2, generator=generator) for count in (4, 4, 2)]
    noise = None if latents is None else torch.cat(parts)
    exact = nats_to_bpd(model(torch.from_numpy(data.test.images), noise).neg_elbo, 16)
    np.testing.assert_allclose(bounds["float32"], exact.detach().numpy(), rtol=1e-5)
    difference = np.abs(bounds["bfloat16"] - bounds["float32"])
    assert 0 < difference.max() < 0.05


def test_weights_and_pairs_are_kept_and_shown(tmp_path, monkeypatch):
    kept, data = tmp_path / "kept", tiny_data(12)
    monkeypatch.setattr(bf16, "load_data", lambda name, **options: data)
    monkeypatch.setattr(bf16, "load_dataset", lambda config: data)
    run, _ = write_run(tmp_path / "tiny" / "run", tiny_specification())
    run.write_config({**run.read_config(), "data": "digits"})
    bf16.weights(run.path, 8, kept)
    small = {"class_path": precision.DECODER["class_path"], "init_args": {"layers": 1}}
    monkeypatch.setattr(precision, "DECODER", small)
    bf16.pairs("digits", 4, 2, 2, tmp_path / "runs", kept)
    first = (kept / "bf16-pairs.json").read_text()
    monkeypatch.setattr(precision, "train", None)  # what is finished is not trained again
    bf16.pairs("digits", 4, 2, 2, tmp_path / "runs", kept)
    cells = json.loads(first)["cells"]
    assert cells == json.loads((kept / "bf16-pairs.json").read_text())["cells"]
    differences = [
        cells[seed]["bfloat16"]["elbo_bpd"] - cells[seed]["float32"]["elbo_bpd"] for seed in "01"
    ]
    text = precision.section(kept)
    assert "| tiny--run | 8 |" in text
    assert f"Mean difference {np.mean(differences):+.4f} ± {stats.sem(differences):.4f}" in text
