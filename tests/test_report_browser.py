"""The page in a real browser: every picture decodes, nothing is fetched, the numbers are there."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltavae.latents import AR1, Standard
from deltavae.report import build_report
from test_report import LADDER, SIDE, Page, digits, make_run

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

# Run by the browser in a copy of the page: what it made of every image, left in the DOM.
PROBE = """<script>addEventListener("load", () => {
  for (const image of document.images) {
    image.dataset.decoded = image.complete && image.naturalWidth > 0;
  }
  document.body.dataset.fetched = performance.getEntriesByType("resource")
    .filter(entry => !entry.name.startsWith("data:")).map(entry => entry.name).join(" ");
  document.body.dataset.overflow = document.documentElement.scrollWidth > innerWidth;
});</script>"""


def chromium(profile: Path, *arguments: str) -> str:
    """Run the browser once, with a profile of its own, and return what it prints."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--hide-scrollbars",
        "--virtual-time-budget=10000",
        f"--user-data-dir={profile}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    runs = [
        make_run(folder / "delta", AR1(SIDE, LADDER), aux_elbo_bpd=1.9),
        make_run(folder / "no-latents", None),
        make_run(folder / "vae", Standard(SIDE, 3), rate_bits=0.04, rate_bits_se=0.001),
    ]
    build_report(runs, folder / "report.html", images={run.path: digits() for run in runs})
    return folder / "report.html"


@pytest.fixture(scope="module")
def seen(report, tmp_path_factory):
    """The page as the browser sees it, after it has loaded."""
    probed = report.with_name("probed.html")
    text = report.read_text(encoding="utf-8")
    probed.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    return Page(chromium(tmp_path_factory.mktemp("profile"), "--dump-dom", probed.as_uri()))


def test_every_image_decodes(seen):
    assert len(seen.images) == 13
    assert [image["alt"] for image in seen.images if image["data-decoded"] != "true"] == []


def test_nothing_is_fetched_and_nothing_sticks_out(seen):
    (body,) = [attributes for tag, attributes in seen.tags if tag == "body"]
    assert body["data-fetched"] == ""
    assert body["data-overflow"] == "false"


def test_headings_and_metrics_are_there(seen):
    assert seen.headings[:4] == ["delta", "What came out", "Metrics (test split)", "Training"]
    rows = {cells[0]: cells[1:] for cells in seen.cells}
    assert rows["ELBO under the auxiliary prior, bits/dim"] == [
        "1.9000 ± 0.0211 ★",
        "–",
        "2.0123 ± 0.0211",
    ]
    assert "delta is ahead" in seen.text


@pytest.mark.parametrize("dark", [False, True])
def test_screenshot_shows_a_page(report, tmp_path, dark):
    picture = tmp_path / "page.png"
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    chromium(
        tmp_path / "profile",
        *options,
        f"--screenshot={picture}",
        "--window-size=1280,3600",
        report.as_uri(),
    )
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape == (3600, 1280)
    paper = int(np.median(pixels[:, :20]))
    assert paper < 40 if dark else paper > 240
    # Ink and pictures fill the page; a page that failed to render is one colour.
    assert (np.abs(pixels.astype(int) - paper) > 60).mean() > 0.02
