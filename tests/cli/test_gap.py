"""How much of the gap is closed, and which finding is acted on."""

import math

import pytest
from otoscope.cli.demonstration import root_finding
from otoscope.cli.gap import MENDED, gap_closed
from otoscope.store import Finding, Recommendation

GUESSING = math.log(10)


@pytest.mark.parametrize(
    ("before", "after", "healthy", "closed"),
    [
        (1.0, 0.2, 0.0, 0.8),
        (1.0, 1.0, 0.5, 0.0),
        (1.0, 1.5, 0.5, -1.0),
        (1.0, 0.4, 0.5, 1.2),
        (math.nan, 0.0, 0.0, 1.0),
        (math.inf, GUESSING, 0.0, 0.0),
        (1e9, GUESSING, 0.1, 0.0),
        (1.0, math.nan, 0.5, (1.0 - GUESSING) / 0.5),
    ],
)
def test_the_gap_is_that_of_the_losses_bounded_by_guessing(before, after, healthy, closed):
    assert gap_closed(before, after, healthy, classes=10) == pytest.approx(closed)


def test_where_there_is_no_gap_nothing_is_mended():
    closed = gap_closed(before=0.2, after=0.1, healthy=0.3, classes=10)

    assert math.isnan(closed)
    assert not closed >= MENDED


def finding(name: str, *, caused: tuple[str, ...] = (), advice: bool = True) -> Finding:
    return Finding(
        id=name,
        run="r",
        attempt=1,
        rule=name,
        severity="warning",
        state="firing",
        scope="run",
        first_step=1,
        last_step=2,
        title=name,
        caused=list(caused),
        recommendation=Recommendation("lr", proposed=0.1) if advice else None,
    )


@pytest.mark.parametrize(
    ("findings", "chosen"),
    [
        ([finding("a"), finding("b")], "a"),
        ([finding("a"), finding("b", caused=("a",))], "b"),
        ([finding("a", advice=False), finding("b")], "b"),
    ],
)
def test_the_first_root_cause_with_advice_is_acted_on(findings, chosen):
    found = root_finding(findings)

    assert found is not None and found.id == chosen


def test_nothing_is_acted_on_without_advice():
    assert root_finding([finding("a", advice=False)]) is None
