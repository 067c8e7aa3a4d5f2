"""``umbel metrics``: print all metrics with type, labels and meaning, or their page (``docs/metrics.md``)."""

from __future__ import annotations

import json
import shutil
import textwrap

import click

from ..observe.catalogue import METRICS, Merge, Metric, Type

_TEXT_WIDTH_MAX = 100
_WIDTH_MIN = 40
_WITHOUT_TERMINAL = (120, 24)
"""Columns and lines that are assumed in a pipe, in which the first line of a metric should be one line."""
_INTRODUCTION = """\
# Metrics: what a scraper gets

<!-- Made by `umbel metrics --markdown`; edit observe/catalogue.py or cli/metrics.py, then make it again. -->

This page lists every metric of Umbel, with its labels and its meaning. [operate.md](operate.md) says which of them
to watch. `umbel metrics` prints the same list in a terminal.

Let Prometheus scrape an address that serves `/metrics` and nothing else:

```toml
[admin]
metrics = "127.0.0.1:9464"
```

```yaml
scrape_configs:
  - job_name: umbel
    static_configs: [{targets: ["127.0.0.1:9464"]}]
```

The admin side ([admin.md](admin.md)) serves `/metrics` too; without Prometheus, a look costs one command:

```sh
curl --unix-socket logs/admin.sock http://localhost/metrics
```

- **Format.** OpenMetrics with exemplars if the scraper accepts it, else the classic text format. An exemplar is the
  trace id of the latest request in a bucket.
- **All workers in one answer.** Under `umbel serve -w` the master adds the values of its workers. Where the table
  says so, the value is the highest of all workers instead. Without a master, the answer is that of one process;
  with `hypercorn -w N`, each process has an admin socket of its own.
- **Counters and histograms never fall** while workers die, are killed, replaced or reloaded: the master keeps what
  they counted. A worker that is killed by SIGKILL loses what it counted within its last second. A restart of the
  master begins at 0, which `rate()` handles.
- **A worker that does not answer** within 0.5 s counts with its last figures, and `umbel_worker_stale` is 1 for it.
- **The number of time series is bounded.** The values of labels come from the configuration, the code or a closed
  list, never from a path, a field or a body, unless a handler makes names of calls from them. Names of calls are cut
  after 100 characters. Unknown methods are `_OTHER`; more than 256 names of calls in a route, or 64 replicas of an
  upstream, are counted as `other`; the master keeps at most 50,000 time series of ended workers.
- **What is counted.** Requests that `Umbel` answers, also those that the server refuses; of any other ASGI
  application only what the server knows. Probes count like other requests. A call that shares the response of an
  identical one counts as a call; the attempt behind both counts once. A response that a handler makes itself is no
  composed answer. A WebSocket is a request that ends with its handshake: what follows is no HTTP, and OpenTelemetry's
  conventions leave it open.

| metric | type | labels | meaning |
|---|---|---|---|
"""
_BUCKETS = """
The buckets of a histogram, in seconds:

"""


@click.command(short_help="List the metrics with type, labels and meaning.")
@click.option("--markdown", is_flag=True, help="Print docs/metrics.md instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def metrics(markdown: bool, as_json: bool) -> None:
    """List all metrics that /metrics of the admin side has, with type, labels and meaning."""
    if markdown:
        click.echo(_markdown(), nl=False)
    elif as_json:
        click.echo(json.dumps([_as_dict(metric) for metric in METRICS], indent=2))
    else:
        width = max(_WIDTH_MIN, shutil.get_terminal_size(_WITHOUT_TERMINAL).columns)
        click.echo("\n\n".join(_paragraph(metric, width) for metric in METRICS))


def _paragraph(metric: Metric, width: int) -> str:
    labels = "{" + ", ".join(metric.labels) + "}" if metric.labels else ""
    head = textwrap.fill(f"{metric.name}{labels}  {metric.type}", width, subsequent_indent="  ")
    text_width = min(_TEXT_WIDTH_MAX, width)
    text = textwrap.fill(_meaning(metric), text_width, initial_indent="    ", subsequent_indent="    ")
    return f"{head}\n{text}"


def _as_dict(metric: Metric) -> dict[str, object]:
    return {
        "name": metric.name,
        "type": metric.type,
        "labels": metric.labels,
        "meaning": _meaning(metric),
        "buckets": metric.bounds,
    }


def _markdown() -> str:
    rows, buckets = [], []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {_meaning(metric)} |\n")
        if metric.bounds:
            buckets.append(f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.bounds)}\n")
    return "".join([_INTRODUCTION, *rows, _BUCKETS, *buckets])


def _meaning(metric: Metric) -> str:
    if metric.type is Type.GAUGE and metric.merge is Merge.MAX and "worker" not in metric.labels:
        return f"{metric.meaning} The highest of all workers."
    return metric.meaning
