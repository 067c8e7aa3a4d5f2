"""Read a dashboard into Grafana's models and print it again: ``round_trip.py FILE``, run by .ext/grafana/bin/python."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models import dashboard

plugins.register_default_plugins()
model = dashboard.Dashboard.from_json(json.loads(Path(sys.argv[1]).read_text()))
print(encoder.JSONEncoder().encode(model))
