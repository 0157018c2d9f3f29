"""The page of one or several runs: its claims follow from the numbers, it needs no other file."""

import base64
import csv
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from deltavae.configuration import model_specification
from deltavae.evaluation.evaluate import warnings as evaluation_warnings
from deltavae.latents import AR1, Latents, Standard
from deltavae.report import Samples, Sizes, build_report, draw_samples
from deltavae.report.summary import Result, rank, summarise
from deltavae.report.table import METRICS, table
from deltavae.run_folder import RunFolder, instantiate
from deltavae.units import nats_to_bits

SIDE, LEVELS = 8, 17
DECODER = {
    "class_path": "deltavae.decoders.GatedPixelCNN",
    "init_args": {"channels": 8, "layers": 2, "heads": 2},
}
ENCODER = {
    "class_path": "deltavae.encoders.AntiCausalEncoder",
    "init_args": {"channels": 8, "layers": 1},
}
LADDER = [0.5, 0.7, 0.9]


def metrics_of(latents: Latents | None, **changes):
    """Metrics as `evaluate` writes them, all different, so that no number stands for another."""
    values = {
        "split": "test",
        "examples": 359,
        "dims": SIDE * SIDE,
        "params": 12345,
        "aux_params": 678,
        "binarisation": None,
        "distortion_bits": 131.5678,
        "distortion_bits_se": 1.2345,
        "rate_bits": None,
        "rate_bits_se": None,
        "committed_rate_bits": None,
        "mutual_information_bits": None,
        "mutual_information_bits_se": None,
        "aux_rate_bits": None,
        "elbo_bpd": 2.05432,
        "elbo_bpd_se": 0.01987,
        "aux_elbo_bpd": None,
        "aux_elbo_bpd_se": None,
        "train_seconds": 61.4,
        "warnings": [],
    }
    if latents is not None:
        delta = nats_to_bits(latents.committed_rate)
        terms = nats_to_bits(latents.committed_terms) + 0.01
        values |= {
            "committed_rate_bits": delta,
            "rate_bits": delta + 3.21,
            "rate_bits_se": 0.12,
            "aux_rate_bits": 2.74,
            "aux_rate_bits_se": 0.09,
            "mutual_information_bits": 1.53,
            "mutual_information_bits_se": 0.04,
            "mutual_information_cap_bits": 8.488,
            "aux_elbo_bpd": 2.01234,
            "aux_elbo_bpd_se": 0.02112,
            "active_units": 7,
            "latent_units": latents.n * latents.d,
            "rate_terms_bits": terms.tolist(),
        }
    return values | changes


def make_run(path: Path, latents: Latents | None, config=None, **changes) -> RunFolder:
    """Write a run folder by hand: a small model with random weights, a log, metrics."""
    run = RunFolder(path)
    spec = model_specification(
        (1, SIDE, SIDE), LEVELS, decoder=DECODER, encoder=ENCODER, latents=latents, aux_hidden=4
    )
    run.write_config({**(config or {}), "model": spec})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run.save_weights(instantiate(spec))
    run.write_json(run.metrics, {"test": metrics_of(latents, **changes)})
    run.write_json(run.provenance, {"deltavae": "0.1.0", "seed": 0, "data_sha256": "f00d"})
    entries = []
    for step in range(50, 1050, 50):
        entry = {"step": step, "distortion_bits": 130 + 4000 / step, "elbo_bpd": 2 + 60 / step}
        if latents is not None:
            delta = nats_to_bits(latents.committed_rate)
            entry["committed_rate_bits"] = delta
            entry["rate_bits"] = delta + 20 * math.exp(-step / 150)
            entry["aux_rate_bits"] = 15 * math.exp(-step / 200)
        entries.append(entry)
    with run.log.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(entries[0]))
        writer.writeheader()
        writer.writerows(entries)
    return run


def digits() -> np.ndarray:
    return np.random.default_rng(0).integers(0, LEVELS, (40, 1, SIDE, SIDE), dtype=np.uint8)


class Page(HTMLParser):
    """What a test reads off the page: tags with attributes, the table's cells, headings, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.cells: list[list[str]] = []
        self.headings: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        self.text += data
        if self._open in ("td", "th"):
            self.cells[-1][-1] += data
        if self._open in ("h1", "h2", "h3"):
            self.headings[-1] += data

    @property
    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "delta", AR1(SIDE, LADDER), **{"elbo_bpd": 2.3}),
        make_run(folder / "no-latents", None),
        make_run(
            folder / "vae",
            Standard(SIDE, 3),
            rate_bits=0.04,
            rate_bits_se=0.001,
            aux_rate_bits=0.03,
            mutual_information_bits=0.01,
        ),
    ]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    build_report(runs, out, images={run.path: digits() for run in runs})
    return Page(out.read_text(encoding="utf-8"))


def test_page_needs_no_other_file(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes[name][:80])
    style = page.text[page.text.index(":root") :]
    assert "url(" not in style
    assert "@import" not in style
    # A picture could reach out as well: no SVG here names another file.
    for image in page.images:
        kind, data = image["src"].split(";base64,")
        content = base64.b64decode(data)
        if kind == "data:image/svg+xml":
            links = re.findall(rb'(?:href|src)="([^"]*)"', content)
            assert all(link.startswith((b"#", b"data:")) for link in links)
        else:
            assert kind == "data:image/png"
            assert content.startswith(b"\x89PNG\r\n")
        assert image["alt"]


def test_page_has_its_sections_and_pictures(page):
    for heading in (
        "What came out",
        "Metrics (test split)",
        "Training",
        "Samples",
        "Rate per step and channel",
        "Committed rate δ against α",
        "Provenance and configuration",
    ):
        assert heading in page.headings
    shown = [image["alt"] for image in page.images]
    assert [alt for alt in shown if alt.startswith("Samples of")] == [
        "Samples of delta",
        "Samples of no-latents",
        "Samples of vae",
    ]
    for kind in ("Decodings of fixed z of", "Interpolations of", "Rate per latent step"):
        names = [alt.split()[-1] for alt in shown if alt.startswith(kind)]
        assert names == ["delta", "vae"]


def test_table_prints_the_numbers_of_metrics_json(page, runs):
    rows = {cells[0]: cells[1:] for cells in page.cells}
    metrics = [run.read_json(run.metrics)["test"] for run in runs]
    compared = 0
    for metric in METRICS:
        values = [m.get(metric.key) for m in metrics]
        if all(value is None for value in values):
            assert metric.label not in rows
            continue
        for m, value, text in zip(metrics, values, rows[metric.label], strict=True):
            if value is None:
                assert text == "–"
                continue
            printed = text.removesuffix(" ★").replace(",", "").split(" ± ")
            assert abs(float(printed[0]) - value) <= 0.5000001 * 10.0**-metric.digits
            se = m.get(f"{metric.key}_se")
            assert len(printed) == (1 if se is None else 2)
            if se is not None:
                assert abs(float(printed[1]) - se) <= 0.5000001 * 10.0**-metric.digits
            compared += 1
    assert compared > 30
    assert rows["ELBO, bits/dim"] == ["2.3000 ± 0.0199", "2.0543 ± 0.0199", "2.0543 ± 0.0199"]
    assert rows["rate, bits"][1] == "–"


def test_provenance_and_configuration_are_complete(page):
    assert '"data_sha256": "f00d"' in page.text
    assert "class_path: deltavae.latents.ar1.AR1" in page.text


def test_page_is_a_function_of_runs_and_seed(runs, tmp_path):
    texts = []
    for seed in (0, 0, 1):
        out = tmp_path / "report.html"
        build_report(runs[:1], out, seed=seed)
        texts.append(out.read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_names_and_files_are_escaped(tmp_path):
    run = make_run(
        tmp_path / "<b>&bold",
        None,
        config={"note": "<script>alert(1)</script>"},
        warnings=["<i>careful</i>"],
    )
    build_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings[0] == "<b>&bold"
    assert "&lt;script&gt;alert(1)" in text
    assert not {"b", "i", "script"} & {tag for tag, _ in page.tags}


def test_originals_come_from_the_configured_data_if_they_are_the_same(tmp_path):
    np.save(tmp_path / "images.npy", digits())
    config = {"data": str(tmp_path / "images.npy"), "levels": LEVELS}
    run = make_run(tmp_path / "run", AR1(SIDE, LADDER), config=config)
    build_report([run], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "no longer the one of the training" in page.text  # provenance says f00d
    assert "Images of the data set" not in [image["alt"] for image in page.images]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: run.metrics.unlink(), "no metrics.json: run deltavae evaluate first"),
        (lambda run: run.metrics.write_text('{"train": {}}'), 'no metrics of the split "test"'),
        (lambda run: run.weights.unlink(), "no weights in this run folder"),
        (lambda run: run.config.unlink(), "this is not a run folder"),
    ],
)
def test_incomplete_runs_are_refused(tmp_path, break_it, message):
    run = make_run(tmp_path / "run", None)
    break_it(run)
    with pytest.raises(ValueError, match=message):
        build_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_runs_are_named_once_and_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        build_report([], tmp_path / "report.html")
    run = make_run(tmp_path / "run", None)
    with pytest.raises(ValueError, match="twice"):
        build_report([run, RunFolder(tmp_path / "." / "run")], tmp_path / "report.html")


def test_runs_of_one_name_are_told_apart(tmp_path):
    both = [make_run(tmp_path / parent / "run", None) for parent in ("a", "b")]
    build_report(both, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.cells[0][1:] == [str(run.path) for run in both]


def test_a_run_without_log_or_heat_map_has_a_page(tmp_path):
    run = make_run(tmp_path / "run", Standard(SIDE, 2), rate_terms_bits=None)
    run.log.unlink()
    build_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No training log" in text
    assert "do not hold the rate per step and channel" in text
    assert "No run has an AR(1) prior" in text


def test_rate_terms_of_another_shape_are_refused(tmp_path):
    run = make_run(tmp_path / "run", AR1(SIDE, LADDER), rate_terms_bits=[[1.0]])
    with pytest.raises(ValueError, match=r"rate_terms_bits must have shape \(8, 3\)"):
        build_report([run], tmp_path / "report.html")


# The words


def result(name="run", *, bound=(2.0, 0.01), data="f00d", log=(), **metrics) -> Result:
    values = {"elbo_bpd": bound[0], "elbo_bpd_se": bound[1], "examples": 359, "dims": 64}
    return Result(name, values | metrics, log, data)


def said(*results: Result) -> str:
    return " ".join(summarise(results).sentences)


def test_no_win_within_two_standard_errors():
    # Combined standard error 0.005, so 0.0099 is inside and 0.0101 outside.
    a = result("a", bound=(2.0, 0.003))
    inside, outside = (result("b", bound=(b, 0.004)) for b in (2.0099, 2.0101))
    assert rank([a, inside]).winner is None
    assert "No run is ahead" in said(a, inside)
    assert "a is ahead" not in said(a, inside)
    assert not any(
        cell.best for row in table([a, inside], rank([a, inside])) for cell in row.cells
    )
    assert rank([a, outside]).winner is a
    assert rank([outside, a]).winner is a
    assert "2.0 combined standard errors, so that a is ahead" in said(a, outside)
    marked = [
        (row.label, i)
        for row in table([outside, a], rank([outside, a]))
        for i, cell in enumerate(row.cells)
        if cell.best
    ]
    assert marked == [("ELBO, bits/dim", 1)]


def test_a_winner_must_be_clear_of_every_run():
    # The third is far behind by its number, but not by its standard error.
    runs = [
        result("a", bound=(2.0, 0.001)),
        result("b", bound=(2.1, 0.001)),
        result("c", bound=(2.2, 0.2)),
    ]
    assert rank(runs).winner is None
    text = said(*runs)
    assert "No run is ahead" in text
    assert "within two standard errors of it is c" in text
    assert "b, 2.1000 ± 0.0010 bits/dim (exact), is behind" not in text  # b is not the run
    assert "b, 2.1000 ± 0.0010 bits/dim (exact), is behind a" in said(runs[1], runs[0], runs[2])


def test_the_run_itself_is_placed_even_if_it_is_last():
    runs = [result("run", bound=(3.0, 0.01)), result("a", bound=(1.0, 0.01)), result("b")]
    text = said(*runs)
    assert "so that a is ahead" in text
    assert "run, 3.0000 ± 0.0100 bits/dim (exact), is behind a" in text


def test_the_lowest_of_a_runs_bounds_counts():
    run = result("run", bound=(2.5, 0.01), rate_bits=12.0, committed_rate_bits=10.0)
    run = Result("run", {**run.metrics, "aux_iwae_bpd": 1.9, "aux_iwae_bpd_se": 0.01})
    rival = result("rival", bound=(2.0, 0.01))
    assert rank([run, rival]).winner is run
    assert "1.9000 ± 0.0100 bits/dim (upper bound: importance-weighted" in said(run, rival)
    assert "2.0000 ± 0.0100 bits/dim (exact)" in said(run, rival)


@pytest.mark.parametrize(
    ("rival", "obstacle"),
    [
        (result("b", bound=(9.0, 0.01), data="beef"), "different data sets"),
        (result("b", bound=(9.0, 0.01), dims=784), "different dimensions"),
        (result("b", bound=(9.0, 0.01), examples=10), "different numbers of examples"),
        (result("b", bound=(9.0, None)), "no bound with a standard error for b"),
    ],
)
def test_bounds_of_different_things_are_not_compared(rival, obstacle):
    summary = summarise([result("a"), rival])
    assert "ahead" not in " ".join(summary.sentences)
    assert obstacle in summary.warnings[0]


def test_rate_against_delta():
    above = result(rate_bits=12.5, rate_bits_se=0.1, committed_rate_bits=10.0)
    assert "its rate is 12.50 ± 0.10 bits, 2.50 bits above it" in said(above)
    # The margin is 5 % of δ and two standard errors: 0.5 + 0.2.
    floor = result(rate_bits=10.69, rate_bits_se=0.1, committed_rate_bits=10.0)
    assert "at that floor" in said(floor)
    beyond = result(rate_bits=10.71, rate_bits_se=0.1, committed_rate_bits=10.0)
    assert "at that floor" not in said(beyond)


@pytest.mark.parametrize(
    ("lower", "upper", "told"),
    [
        (3.0, 4.0, "at least 3.000 ± 0.012 and at most 4.000 ± 0.001 bits are"),
        (0.012, 0.006, "about 0.006 ± 0.001 bits or less are"),  # within two standard errors
        (0.012, -0.02, "at least 0.012 ± 0.012 and at most -0.020 ± 0.001 bits are"),  # beyond
        (0.012, None, "at least 0.012 ± 0.012 bits are"),
        (None, 0.006, "at most 0.006 ± 0.001 bits are"),
    ],
)
def test_bounds_of_the_information_that_changed_places(lower, upper, told):
    metrics = {
        "mutual_information_bits": lower,
        "mutual_information_bits_se": 0.012,
        "aux_rate_bits": upper,
        "aux_rate_bits_se": 0.001,
    }
    text = said(result(rate_bits=10.0, committed_rate_bits=10.0, **metrics))
    assert f"Of this rate {told} information about the example." in text


def test_floor_without_information_is_a_warning():
    metrics = {
        "committed_rate_bits": 10.0,
        "rate_bits": 10.05,
        "rate_bits_se": 0.01,
        "mutual_information_bits": 0.02,
        "mutual_information_bits_se": 0.01,
        "mutual_information_cap_bits": 8.5,
        "examples": 359,
    }
    empty = result("run", **metrics, warnings=evaluation_warnings(metrics))
    (warning,) = summarise([empty]).warnings
    assert warning.startswith("run: the rate is committed, the information is not")
    full = {**metrics, "rate_bits": 14.0, "mutual_information_bits": 4.0}
    assert summarise([result(**full, warnings=evaluation_warnings(full))]).warnings == ()


def test_a_rate_below_delta_is_a_warning():
    low = result(committed_rate_bits=10.0, rate_bits=9.9, rate_bits_se=0.2)
    assert "lies below δ" in summarise([low]).warnings[0]
    rounding = result(committed_rate_bits=10.0, rate_bits=10.0 - 1e-6, rate_bits_se=0.2)
    assert summarise([rounding]).warnings == ()


def test_a_bad_auxiliary_prior_is_a_warning():
    bad = result(committed_rate_bits=1.0, rate_bits=9.0, aux_rate_bits=11.0)
    assert "fit-prior" in summarise([bad]).warnings[0]
    good = result(committed_rate_bits=1.0, rate_bits=9.0, aux_rate_bits=7.0)
    assert summarise([good]).warnings == ()


def test_what_survived_of_an_ordinary_vae():
    log = [
        {"step": s, "rate_bits": r}
        for s, r in ((50.0, 4.0), (100.0, 8.0), (150.0, 2.0), (200.0, 0.4))
    ]
    vae = result("vae", committed_rate_bits=0.0, rate_bits=0.05, rate_bits_se=0.001, log=log)
    text = said(vae)
    assert "It has collapsed: its rate on the test split is 0.05" in text
    assert "ended at 0.40 bits (step 200), 5.0% of its peak of 8.00 bits (step 100)" in text
    alive = result("vae", committed_rate_bits=0.0, rate_bits=6.0, rate_bits_se=0.1, log=log[:2])
    assert "collapsed" not in said(alive)
    assert "100.0% of its peak" in said(alive)


# What is drawn


def tiny(latents: Latents | None, path: Path):
    return make_run(path, latents).load_model()


def test_samples_of_a_model_with_latents(tmp_path):
    model = tiny(AR1(SIDE, LADDER), tmp_path)
    images = digits()
    sizes = Sizes(count=5, fixed=2, decodings=3, lines=2, steps=4)
    steps = []
    drawn = draw_samples(
        model,
        images,
        sizes=sizes,
        generator=torch.Generator().manual_seed(3),
        progress=steps.append,
    )
    assert steps == list(range(1, SIDE * SIDE + 1))  # one pass for everything
    event = (1, SIDE, SIDE)
    assert drawn.samples.shape == (5, *event)
    assert drawn.decodings.shape == (2, 3, *event)
    assert drawn.interpolations.shape == (2, 4, *event)
    np.testing.assert_array_equal(drawn.originals, images[:2])
    np.testing.assert_array_equal(drawn.line_ends, images[2:6].reshape(2, 2, *event))
    assert drawn.prior == "aux"
    again = draw_samples(model, images, sizes=sizes, generator=torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(drawn.decodings, again.decodings)
    few = draw_samples(model, images[:3], sizes=sizes)
    assert few.decodings.shape == (2, 3, *event)
    assert few.interpolations is None  # two of three images are taken, one makes no line
    none = draw_samples(model, sizes=sizes)
    assert none.originals is None
    assert none.decodings.shape == (2, 3, *event)


def test_fixed_z_and_lines_are_what_the_decoder_reads(tmp_path, monkeypatch):
    model = tiny(AR1(SIDE, LADDER), tmp_path)
    images, read = digits(), []

    def spy(decoder, z, batch, **_):
        read.append(z)
        return torch.zeros(batch, 1, SIDE, SIDE, dtype=torch.uint8)

    monkeypatch.setattr("deltavae.report.samples.draw", spy)
    sizes = Sizes(count=5, fixed=2, decodings=3, lines=1, steps=5)
    draw_samples(model, images, sizes=sizes)
    z = read[0]
    assert len(z) == 5 + 2 * 3 + 5
    rows = z[5:11].unflatten(0, (2, 3))
    assert (rows == rows[:, :1]).all()  # one z per row
    assert (rows[0] != rows[1]).any()
    mu = model.encode(torch.from_numpy(images[2:4])).mu
    for i, weight in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        between = (1 - weight) * mu[0] + weight * mu[1]
        torch.testing.assert_close(z[11 + i], model.latents.to_decoder(between[None])[0])


def test_samples_without_latents(tmp_path):
    drawn = draw_samples(tiny(None, tmp_path), digits(), sizes=Sizes(count=3))
    assert drawn.samples.shape == (3, 1, SIDE, SIDE)
    assert drawn.decodings is None
    assert drawn.prior is None


def test_given_samples_are_shown_and_not_drawn_again(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", None)
    monkeypatch.delattr("deltavae.report.page.draw_samples")
    given = Samples(np.zeros((2, 1, SIDE, SIDE), np.uint8))
    build_report([run], tmp_path / "report.html", samples={run.path: given})
    assert "Samples of run" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["count", "fixed", "decodings", "lines", "steps"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        Sizes(**{name: -1})
