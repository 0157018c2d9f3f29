"""Long work is told of now and then, short work not at all."""

from deltavae.cli.console import Patience


def test_patience_speaks_only_after_its_time(capsys):
    quiet, talkative = Patience(every=1000.0), Patience(every=0.0)
    for patience in (quiet, talkative):
        patience.drawing("runs/x", 3, 64)
        patience.say("draw 2 of 8")
    said = capsys.readouterr().err.splitlines()
    assert said == ["drawing samples of runs/x: position 3 of 64", "draw 2 of 8"]
