"""What the labs show, beyond their figures."""

from __future__ import annotations

from tests.process.labs.conftest import Ran


async def test_siblings_of_a_failure_run_on_with_gather_only(ran: Ran) -> None:
    runs = await ran(1)
    for run in runs.values():
        assert [note.text for note in run.notes] == ["502 offers is down"]
        assert run.named("page")[0].end == 1
    assert {bar.how for bar in runs["gather"].leaves()} == {"failed", "running"}
    for column in ("taskgroup", "trio"):
        assert {(bar.how, bar.end) for bar in runs[column].leaves()} == {("failed", 1.0), ("cancelled", 1.0)}
    # Only trio says why.
    assert {bar.reason for bar in runs["taskgroup"].leaves() if bar.how == "cancelled"} == {
        "CancelledError, which has no reason"
    }
    assert all("offers is down" in bar.reason for bar in runs["trio"].leaves())
