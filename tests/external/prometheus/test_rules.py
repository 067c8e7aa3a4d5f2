"""promtool on docs/prometheus: the alerts are valid, fire when they should, and the shown configuration is right."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tools.external import program

from tests.support.process.processes import PROJECT, ended

RULES = PROJECT / "docs" / "prometheus"


async def promtool(*arguments: str, cwd: Path = RULES) -> str:
    status, output = await ended(program("promtool") or "promtool", *arguments, cwd=cwd)
    assert status == 0, output
    return output


async def test_the_alerts_are_valid() -> None:
    assert re.search(r"SUCCESS: \d+ rules found", await promtool("check", "rules", "alerts.yml"))


async def test_each_alert_fires_in_its_case_and_not_in_another() -> None:
    assert "SUCCESS" in await promtool("test", "rules", "alerts_test.yml")


async def test_the_configuration_that_the_page_shows_is_valid(tmp_path: Path) -> None:
    shown = re.findall(
        r"```yaml\n(# prometheus\.yml\n.*?)```", (PROJECT / "docs" / "operate.md").read_text(), re.DOTALL
    )
    (tmp_path / "prometheus.yml").write_text(shown[0])
    shutil.copy(RULES / "alerts.yml", tmp_path)

    output = await promtool("check", "config", "prometheus.yml", cwd=tmp_path)

    assert "1 rule files found" in output
