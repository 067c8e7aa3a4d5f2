"""The queries of docs/operate.md, of the alerts and of the dashboard, as they stand in the documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "operate.md").read_text()
ALERTS = (DOCS / "prometheus" / "alerts.yml").read_text()
CASES = (DOCS / "prometheus" / "alerts_test.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana" / "umbel.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, Any] = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


def alerts() -> dict[str, str]:
    """Each alert with the text of its rule."""
    return dict(re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", ALERTS, re.DOTALL))


def of_alerts() -> dict[str, str]:
    """The query of each alert."""
    return {name: re.findall(r"expr: \|-\n((?: {10}.*\n)+)", rule + "\n")[0] for name, rule in alerts().items()}


def of_panels() -> dict[str, str]:
    """The queries of the dashboard, by title and letter."""
    return {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}


def of_variables() -> dict[str, tuple[str, str]]:
    """The selector and the label from which each variable of the dashboard has its values."""
    queries = {name: str(each["query"]["query"]) for name, each in VARIABLES.items() if each["type"] == "query"}
    found = {name: re.fullmatch(r"label_values\((.*), (\w+)\)", query) for name, query in queries.items()}
    return {name: (match[1], match[2]) for name, match in found.items() if match is not None}


def of_page() -> dict[str, str]:
    """The queries in docs/operate.md, and the names of metrics there."""
    quoted = re.findall(r"`([^`\n]+)`", PAGE) + re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
    return {f"operate.md: {query}": query for query in quoted if re.search(r"\b(?:umbel|http)_\w+", query)}


def everywhere() -> dict[str, str]:
    """All queries by where they stand."""
    selectors = {f"variable {name}": selector for name, (selector, _) in of_variables().items()}
    return of_alerts() | of_panels() | selectors | of_page()
