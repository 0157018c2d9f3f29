"""Information, not only rate: which settings spend a committed rate on something said.

At R = δ the information is zero. What lies above the floor is bought at the margin: with the
posterior's scale at the minimiser, R = δ + ½ Σ_k μ_kᵀ Λ_k μ_k. So δ should be committed where
information is cheap afterwards. What is tried, at one δ: `information_settings`.

Judged by the auxiliary bound on images held out of training, seed by seed, and by the lower bound
on I(x;z); the test images stand beside, and choose nothing.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416; He et al. 2019, https://arxiv.org/abs/1901.05534
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deltavae.configuration import WITHOUT_LATENTS, ladder_rate
from deltavae.data import data_layout
from deltavae.figures import scatter_with_errors
from deltavae.rates import marginal_information
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.information_settings import (
    ALONE,
    RATE,
    ZERO,
    default,
    main_kind,
    reference,
    seeds,
    setting_options,
    settings,
)
from deltavae.studies.methods import ABOUT_RATE
from deltavae.studies.settings import DATA, SEEDS, cell
from deltavae.studies.statistics import Interval
from deltavae.studies.summaries import (
    ABOUT_COST,
    ABOUT_INFORMATION,
    COST,
    NAMES,
    Verdict,
    by_seed,
    cap,
    cost,
    difference,
    information,
    mean_or_none,
    metric,
    verdicts,
)
from deltavae.studies.tables import Table

BUYS = "first bit buys"
SENSIBLE, GOAL = 0.25, 0.5  # of δ


class Information(Study):
    """Settings of the δ-VAE at one committed rate."""

    name = "information"
    title = "Information, not only rate"
    description = (
        "One committed rate, many ways to commit it. Differences are to the reference with the "
        "same kind of decoder, over paired seeds; I(x;z) is a lower bound, aux rate an upper one. "
        "The reference is the first row of a decoder: channels of equal α, mean and decoder in "
        "units of σ*. A row's name says what it changes: plain units, the decoder reads z; "
        "innovations, the mean is given by them; ladder, α differs between channels. "
        f"{ABOUT_RATE}"
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per data set, setting and seed; see `Study`."""
        return [
            cell(
                f"{data}-{RATE[budget]:g}bits-{_label(budget, kind, setting)}",
                {"data": data, "decoder": kind, "setting": setting, "bits": RATE[budget]},
                seed,
                setting_options(budget, data, kind, setting),
            )
            for seed in range(2 * SEEDS[budget])
            for data in DATA[budget]
            for kind, setting in settings(budget, data)
            if seed < seeds(budget, data, kind, setting)
        ]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw one table, one panel and one verdict per data set; see `Study`."""
        panels, xlabels, caps, tables, text = [], [], [], {}, []
        for data in DATA[budget]:
            found = [result for result in results if result.cell.labels["data"] == data]
            if not found:
                continue
            split = "val" if all(result.val for result in found) else "test"
            compared = _compare(found, split, reference(budget), default(budget, data))
            tables[f"settings-{data}"] = _table(data, default(budget, data), compared, split)
            text.append(_text(data, compared, split))
            panels.append({_label(budget, *c.which): c.point for c in compared if c.point})
            xlabels.append(f"{NAMES['mutual_information_bits']} ({data})")
            caps.append(cap(found))
        figures = {}
        if panels:
            figures["information"] = scatter_with_errors(
                *panels,
                xlabels=xlabels,
                ylabel="auxiliary bound − that of the reference, bits/dim",
                caps=caps,
            )
        return Findings(tables=tables, figures=figures, text="\n\n".join(text))


def _label(budget: Budget, kind: str, setting: str) -> str:
    if kind == main_kind(budget):
        return setting
    return kind if setting == reference(budget) else f"{kind}, {setting}"


@dataclass(frozen=True)
class _Compared:
    # A setting, and how it differs from its kind's reference on the split that judges and on test.
    which: tuple[str, str]
    results: Sequence[Result]
    judged: Interval | None
    test: Interval | None
    to_default: Interval | None  # likewise, from the δ-VAE of the other studies, where judged
    verdict: Verdict
    is_reference: bool

    @property
    def point(self) -> tuple[list[Interval], list[Interval]] | None:
        said = metric(self.results, "mutual_information_bits") or _NOTHING
        height = _NOTHING if self.is_reference else self.judged
        return None if height is None else ([said], [height])

    @property
    def share(self) -> float | None:
        # Of δ, that is information.
        said = metric(self.results, "mutual_information_bits")
        return None if said is None else said.value / float(self.results[0].cell.labels["bits"])


_NOTHING = Interval(0.0, 0.0, 0.0, 0.0, 1)


def _bound(results: Sequence[Result], split: str) -> dict[int, float]:
    # The bound that is compared: the auxiliary one, or without latents the exact figure.
    exact = results[0].cell.labels["setting"] in (ALONE, ZERO)
    return by_seed(results, "elbo_bpd" if exact else "aux_elbo_bpd", split)


def _compare(
    results: Sequence[Result], split: str, reference: str, default: str
) -> list[_Compared]:
    groups = by_labels(results, "decoder", "setting")

    def against(base: str, which: tuple[Any, ...], on: str) -> Interval | None:
        other = groups.get((which[0], base))
        if which[1] == base or other is None:
            return None
        return difference(_bound(groups[which], on), _bound(other, on))

    judged = [against(reference, which, split) for which in groups]
    return [
        _Compared(
            (which[0], which[1]),
            found,
            one,
            against(reference, which, "test"),
            against(default, which, split),
            verdict,
            which[1] == reference,
        )
        for (which, found), one, verdict in zip(
            groups.items(), judged, verdicts(judged, "better", "worse"), strict=True
        )
    ]


def _table(data: str, default: str, compared: Sequence[_Compared], split: str) -> Table:
    rows = []
    for one in compared:
        found = one.results
        rates = [metric(found, name) for name in ("rate_bits", "aux_rate_bits")]
        held_out: list[Interval | None] = [None, None]
        if split == "val":
            held_out = [mean_or_none(_bound(found, "val").values()), one.judged]
        row = [*one.which, len(found), _bought(found), *rates, information(found), one.share]
        row += held_out
        row += [mean_or_none(_bound(found, "test").values()), one.test, one.to_default]
        rows.append([*row, one.verdict.p, one.verdict.text, *cost(found)])
    bits = [NAMES[n] for n in ("rate_bits", "aux_rate_bits", "mutual_information_bits")]
    bounds = ["held out", "difference, held out", "test", "difference, test", "− default"]
    judge = "held-out images" if split == "val" else "test images, for none were held out"
    columns = ["decoder", "setting", "seeds", BUYS]
    return Table(
        [*columns, *bits, "I/δ ≥", *bounds, "p (Holm)", "verdict", *COST],
        rows,
        f"{data}: mean over seeds ± standard error over seeds. Held out, test: the auxiliary "
        "bound, or without latents the exact figure, bits/dim; the differences are to the "
        f"reference with the same decoder, seed by seed. Verdict: on {judge}, two-sided t-tests, "
        "p < 0.05 after Holm's correction over this table; – with fewer than two seeds. "
        f"− default: difference to the setting that other studies take for the δ-VAE, {default}, "
        f"on {judge}; it was chosen by this table, so this is no test. Rates and I(x;z) on test "
        f"images. {BUYS}: bits of information for the first bit of rate above δ, by a mean "
        "constant over the rows in the best channel, in closed form "
        f"(`rates.marginal_information`). Asked for: I/δ ≥ {SENSIBLE}, better {GOAL}. "
        f"{ABOUT_INFORMATION} {ABOUT_COST}",
        dict.fromkeys((BUYS, *bits, "I/δ ≥"), 2)
        | dict.fromkeys(("difference, held out", "difference, test", "− default", "p (Holm)"), 4)
        | {"training, min": 1},
    )


def _bought(results: Sequence[Result]) -> float | None:
    options = results[0].cell.options
    if options["latents"] in WITHOUT_LATENTS:
        return None
    n = data_layout(options["data"], size=options.get("size")).shape[1]
    alpha = ladder_rate(
        n,
        options["latent_channels"],
        delta_bits=options["delta_bits"],
        alpha=options.get("alpha"),
    )
    return float(marginal_information(alpha, n).max())


def _text(data: str, compared: Sequence[_Compared], split: str) -> str:
    tested = [one for one in compared if one.verdict.text is not None]
    said = [one for one in compared if one.share is not None]

    def names(chosen: Iterable[_Compared]) -> str:
        return "; ".join(f"{setting} ({kind})" for kind, setting in (c.which for c in chosen))

    told = [f"**{data}**, judged on {'held-out' if split == 'val' else 'test'} images:"]
    if not tested:
        told.append("no verdict, which takes two seeds.")
    else:
        told.append(f"after Holm's correction over {len(tested)} differences to the reference,")
        told += [
            f"{text}: {names(one for one in tested if one.verdict.text == text) or 'none'}."
            for text in ("better", "worse", "level")
        ]
    for share in (SENSIBLE, GOAL):
        reached = names(one for one in said if (one.share or 0.0) >= share)
        told.append(f"I(x;z) ≥ {share} δ: {reached or 'none'}.")
    return " ".join(told)
