"""The benchmarks of the whole path: their configurations are valid, and their reports state the measured figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import trustme

from umbel.config.loading.load import load
from umbel.gateway.checks import CHECKS

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
Script = Callable[[str], ModuleType]


def _configurations(script: Script, ca: Path) -> dict[str, tuple[str, int]]:
    """All configurations of the benchmarks, with the numbers of their routes."""
    where, memory, tail = script("where"), script("path_memory"), script("path_tail")
    return {
        "where": (where.configuration("9001", "9002", str(ca), ""), 5),
        "where --policies": (where.configuration("9001", "9002", str(ca), where.POLICIES), 5),
        "overhead": (script("path_overhead").configuration("9001"), 1),
        "calls": (script("path_calls").configuration("9001", "9002", str(ca)), 10),
        "workers": (script("path_workers").configuration("9001"), 1),
        "memory": (memory.configuration(["9001", "9002"], 10_000), 1),
        "tail, hedged": (tail.hedging_configuration(["9001", "9002"]), 2),
        "tail, dead": (tail.dead_configuration("9001", "9002"), 2),
        "observe, counting": (script("observe_counting").configuration("9001"), 1),
        "observe, scrape": (script("observe_scrape").configuration(["9001", "9002"], 9464), 100),
    }


def test_the_configurations_of_the_benchmarks_are_valid(script: Script, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    for name, (text, routes) in _configurations(script, ca).items():
        file = tmp_path / "umbel.toml"
        file.write_text(text)
        assert len(load(file, checks=CHECKS).routes) == routes, name


def _result(us: dict[str, float]) -> dict[str, object]:
    return {"us": us, "cpu_us": sum(us.values()), "rate": 1.0, "sampling": 0.0, "samples": 1, "functions": []}


def test_the_table_has_a_row_for_each_large_stage_and_one_for_the_rest(script: Script) -> None:
    where = script("where")
    result = _result({"server: head": 90.0, "upstream: policies": 0.1, "a stage of tomorrow": 9.9})
    rows = where.table([("n = 1", result)]).splitlines()
    assert "| server: head | 90.0 (90%) |" in rows
    assert "| a stage of tomorrow | 9.9 (10%) |" in rows
    assert "| all smaller ones | 0.1 (0%) |" in rows
    assert "| **CPU of a request** | **100** |" in rows


def test_a_text_is_replaced_only_between_its_markers(script: Script, tmp_path: Path) -> None:
    marked = script("marked")
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- where: begin -->\nold\n<!-- where: end -->\nafter\n")
    marked.replace_marked(document, "where", "new")
    assert document.read_text() == "before\n<!-- where: begin -->\nnew\n<!-- where: end -->\nafter\n"
    with pytest.raises(SystemExit, match="has no line <!-- bars: begin -->"):
        marked.replace_marked(document, "bars", "new")


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("where", "docs/performance.md"),
        ("calls", "docs/performance.md"),
        ("bars", "README.md"),
        ("bars", "README.zh-CN.md"),
    ],
)
def test_the_documents_have_the_markers(name: str, document: str) -> None:
    text = (BENCHMARKS.parent / document).read_text(encoding="utf-8")
    assert 0 < text.find(f"<!-- {name}: begin -->\n") < text.find(f"\n<!-- {name}: end -->")


def test_a_dead_upstream_that_makes_others_slower_misses_its_bar(script: Script) -> None:
    tail = script("path_tail")
    seen = {tail.ALIVE: [[0.100] * 100], tail.REFUSES: [[0.109] * 100], tail.SILENT: [[0.112] * 100]}
    none = dict.fromkeys(seen, 0)
    assert [line.met for line in tail.dead_lines(seen, none)] == [None, True, False, None]
    failing = none | {tail.REFUSES: 1}
    assert [line.met for line in tail.dead_lines(seen, failing)] == [None, False, False, None]


def test_own_time_is_compared_with_that_of_the_peer_round_by_round(script: Script) -> None:
    overhead = script("path_overhead")

    def rounds(*own: float) -> list[list[object]]:
        return [[overhead.Sample(each, 0.0, 0.0, 0.0, 0.0)] * 3 for each in own]

    line = overhead.lines(rounds(0.001, 0.004, 0.009), rounds(0.002, 0.010, 0.010))[0]
    assert (line.met, line.reached) == (True, "0.50 (0.40-0.90)")
    assert not overhead.lines(rounds(0.0011, 0.004, 0.009), rounds(0.002, 0.010, 0.010))[0].met


def test_a_kind_of_call_is_compared_with_the_plain_route_of_the_same_round(script: Script) -> None:
    calls = script("path_calls")
    costs = {kind: [100.0, 200.0, 900.0] for kind in calls.KINDS} | {"each": [120.0, 250.0, 900.0]}
    costs |= {calls.ONE: [50.0] * 3, calls.CODE_ONE: [50.0] * 3}
    costs["hedged"] = [130.0, 260.0, 900.0]
    found = {line.what.split(",")[0]: (line.met, line.reached) for line in calls.lines(costs) if line.bar}
    assert found.pop('hedged: `hedge = { after = "p95" }`') == (False, "1.30 (1.00-1.30)")
    assert found.pop("`each` over 10 items") == (True, "1.20 (1.00-1.25)")
    assert len(found) == 6
    assert {met for met, _ in found.values()} == {True}


def test_memory_that_grows_from_round_to_round_misses_its_bar(script: Script) -> None:
    memory = script("path_memory")
    mib = 2**20
    before, top = memory.Moment(60 * mib, 17, 24, 0, 0), memory.Moment(500 * mib, 30_017, 40_024, 10_000, 10_000)
    client = memory.Client(0)

    def met(*afters: tuple[int, int]) -> dict[str, bool | None]:
        moments = [memory.Moment(resident * mib, descriptors, 24, 0, 0) for resident, descriptors in afters]
        section = memory.section(10_000, 1, before, [(top, 30.0)] * 2, moments, [client])
        return {line.what.split()[0]: line.met for line in section.lines if line.bar}

    good = met((70, 17), (71, 17))
    assert set(good.values()) == {True}
    assert met((70, 17), (80, 17)) == good | {"memory": False}
    assert met((70, 17), (70, 19)) == good | {"descriptors,": False}
    assert met((300, 17), (300, 17)) == good | {"of": False}
