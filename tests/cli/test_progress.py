"""What a command says of long work on stderr."""

import pytest

from interp.cli import terminal
from interp.cli.terminal import Terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to go on."""
    now = [100.0]
    monkeypatch.setattr(terminal, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_now_and_then_with_the_time_that_is_left(clock, capsys):
    with Terminal().progress("scores of all edges") as show:
        for done in range(1, 81):
            clock[0] += 1
            show(done, 80)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "scores of all edges: 10 of 80 units after 10 s, about 70 s left."
    assert [line.split()[4] for line in said] == [
        "10",
        "15",
        "23",
        "35",
        "53",
    ]  # each after half as long again, none for the last


def test_the_time_that_is_left_is_that_of_what_was_not_there_before(clock, capsys):
    with Terminal().progress("scores") as show:
        for done in range(1, 901):  # read from the disk within no time
            show(done, 1000)
        for done in (901, 902):
            clock[0] += 10
            show(done, 1000)
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "scores: 902 of 1,000 units after 20 s, about 980 s left."


@pytest.mark.parametrize("quiet", [True, False])
def test_short_work_and_a_quiet_command_say_nothing(quiet, clock, capsys):
    with Terminal(quiet=quiet).progress("scores") as show:
        clock[0] += 1000 * quiet + 9
        show(1, 5)
    assert capsys.readouterr().err == ""
