"""The paper's tables and figures, one study each.

`base` says what a study is, `engine` runs its cells, `output` writes its page. A study is a class
in a module of its own; this list names those that come with the package. Nothing heavy is
imported here: the command line shows the list at once.
"""

from typing import NamedTuple


class Listed(NamedTuple):
    """Where a study is, and what it shows in a few words."""

    class_path: str
    summary: str


STUDIES = {
    "rate-vs-alpha": Listed(
        "deltavae.studies.rate_vs_alpha.RateVsAlpha",
        "the committed rate against α, and prior and posterior for n = 2; trains nothing",
    ),
}
