"""Every program in examples/ and every Python block of the pages runs, and does what it says."""

import math
import re
import runpy
from pathlib import Path

import pytest
import torch
import yaml

from deltavae.configuration import model_specification
from deltavae.latents import AR1
from deltavae.units import bits_to_nats
from runs import write_run

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```python\n(?!--8<--)(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if BLOCK.search(page.read_text())]


@pytest.fixture
def beside_runs(tmp_path, monkeypatch):
    """A working directory with the runs that the pages name: the demo's model, untrained."""
    config = yaml.safe_load((ROOT / "configs" / "demo" / "delta-vae.yaml").read_text())
    latents = AR1.from_rate(bits_to_nats(config["delta_bits"]), 8, config["latent_channels"])
    parts = {"decoder": config["decoder"], "encoder": config["encoder"], "latents": latents}
    for name in ("demo", "rows"):
        write_run(tmp_path / "runs" / name, model_specification((1, 8, 8), 17, **parts))
    monkeypatch.chdir(tmp_path)


def run_page(page):
    names = {"__name__": page.stem}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_on_a_page_runs(page, beside_runs):
    run_page(page)


def test_page_of_the_constrained_gaussian_reaches_what_it_asks_for(capsys):
    names = run_page(ROOT / "docs" / "maths" / "independent.md")
    mu, log_variance, rate, formula, direct = map(float, capsys.readouterr().out.split())
    assert (mu, log_variance) == pytest.approx((-2.5, 0.3), rel=1e-12)
    assert rate == pytest.approx(0.5 * (math.exp(0.3) + 6.25 - 1 - 0.3), rel=1e-12)
    assert (formula, direct) == pytest.approx((rate, rate), rel=1e-12)
    # κ, between ½ e^v_lo and ½ e^v_hi
    c, low, high = mu**2 - names["s"] * math.sin(names["theta"]) ** 2, names["low"], names["high"]
    kappa = c / ((high - log_variance) * (log_variance - low))
    assert math.exp(low) / 2 < kappa < math.exp(high) / 2


def test_page_of_batch_normalised_means_pays_by_one_example(capsys):
    names = run_page(ROOT / "docs" / "maths" / "batch-norm.md")
    mean, apart, other, rest = map(float, capsys.readouterr().out.split())
    pair, params = names["pair"], names["params"]
    v = 63 / 64**2
    bound = 10.0 * v / (v + pair.epsilon)
    assert mean == pytest.approx(bound, rel=1e-12)
    assert (apart, other, rest) == pytest.approx((63 * bound, bound / 63, 0.0), rel=1e-12)
    pair.double().eval()  # moments of all 64 bring the bound back, any others do not
    pair.running_mean.fill_(0.5)
    pair.running_variance.fill_(2.0)
    expected = 0.5 * 4 * pair.gamma**2 * (v + (1 / 64 - 0.5) ** 2) / (2.0 + pair.epsilon)
    assert pair.rate(pair.posterior(params)).mean().item() == pytest.approx(expected, rel=1e-12)
    pair.set_moments(params)
    assert pair.rate(pair.posterior(params)).mean().item() == pytest.approx(bound, rel=1e-12)


def test_readme_tells_what_comes_out(beside_runs, capsys):
    names = run_page(README)
    delta, rates = capsys.readouterr().out.split("\n", 1)
    assert float(delta) == pytest.approx(10.0, rel=1e-9)
    rates = [float(number) for number in re.findall(r"\d+\.\d+", rates)]
    assert len(rates) == 4
    assert min(rates) >= 10.0
    assert names["images"].shape == (16, 1, 8, 8)
    assert names["images"].dtype == torch.uint8
    assert names["q"].mu.shape == names["q"].sigma.shape == (16, 8, 4)


def test_own_trainer_beats_even_guessing_and_keeps_the_floor(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "examples" / "own_trainer.py"), run_name="__main__")
    told = re.search(
        r"([\d.]+) bits/dim at most, rate ([\d.]+) bits, δ ([\d.]+)", capsys.readouterr().out
    )
    bound, rate, delta = (float(number) for number in told.groups())
    assert bound < math.log2(names["LEVELS"]) - 1.0  # all levels alike: log2(17) bits
    assert rate >= delta
    assert bits_to_nats(delta) == pytest.approx(7.0, abs=0.01)
    assert list(tmp_path.iterdir()) == []
    decoder = names["model"].decoder.double()
    x, z = torch.randint(17, (2, 1, 8, 8), dtype=torch.uint8), torch.randn(2, 8, 4).double()
    first = decoder(x, z)
    for position in range(0, 64, 5):  # causal in x, and the latents of later rows unseen
        later, hidden = decoder.to_sequence(x).clone(), z.clone()
        later[:, position:] = 16 - later[:, position:]
        hidden[:, position // 8 + 1 :] += 1.0
        changed = decoder(decoder.from_sequence(later), hidden)
        assert torch.equal(changed[:, : position + 1], first[:, : position + 1])
        assert position >= 56 or not torch.equal(changed, first)


def test_every_example_is_run_here():
    assert [path.name for path in (ROOT / "examples").glob("*.py")] == ["own_trainer.py"]
