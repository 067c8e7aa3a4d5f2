"""``[traces]``: when traces are exported, and what the checks say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.gateway.configs import loaded, mistakes
from tests.support.logs.records import Records
from umbel.config.loading import merge
from umbel.config.schema.section_tree import keys_of
from umbel.config.schema.sections import Config
from umbel.core.errors import ConfigError
from umbel.gateway.operation import tracing
from umbel.gateway.operation.tracing import check, exported_traces, head_bound_of, is_exporting, warn
from umbel.observe.request_counts import CountingRecorder
from umbel.observe.traces import extra

VARIABLES = (*extra.ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER")
URL = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries are not installed."""
    monkeypatch.setattr(tracing, "is_installed", lambda: False)


def config(**keys: Any) -> Config:
    return Config.model_validate({"traces": keys})


@pytest.mark.parametrize(
    ("keys", "environ", "expected"),
    [
        ({}, {}, False),
        ({"otlp": URL}, {}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, True),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"otlp": URL}, {"OTEL_SDK_DISABLED": "True"}, False),
        ({"otlp": URL}, {"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"otlp": URL}, {"OTEL_TRACES_EXPORTER": "console,otlp"}, True),
        ({"otlp": URL}, {"OTEL_TRACES_EXPORTER": ""}, True),
    ],
)
def test_traces_are_exported_if_a_collector_is_named(keys: Any, environ: Mapping[str, str], expected: bool) -> None:
    assert is_exporting(config(**keys), environ) is expected


def test_new_traces_are_chosen_only_with_an_export() -> None:
    assert head_bound_of(config()) is None
    assert head_bound_of(config(otlp=URL, sample="50%")) == "8000000000000000"
    assert head_bound_of(config(otlp=URL, sample="0%")) == "0" * 16


@pytest.mark.parametrize("url", ["unix:/run/c.sock", "dns+http://c:4318", "ftp://c", "http://u:p@c", "c:4318"])
def test_a_collector_needs_an_http_url(url: str, tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, f'[traces]\notlp = "{url}"\n')
    assert "traces.otlp" in mistake


def test_the_section_is_read_from_a_file(tmp_path: Path) -> None:
    text = f'[traces]\notlp = "{URL}/"\nsample = "1%"\nslow = "250ms"\nforce = true\nuse_proxy = true\n'
    read = loaded(tmp_path, text).traces
    assert (read.otlp, read.sample, read.slow, read.force, read.use_proxy) == (URL, 0.01, 0.25, True, True)


def test_every_section_is_merged_or_belongs_in_the_main_file() -> None:
    assert set(keys_of(Config)) == {*merge._MAIN_ONLY, *merge._SHARED}


def test_a_collector_without_the_libraries_is_a_mistake(missing: None) -> None:
    ((path, reason),) = check(config(otlp=URL))
    assert (path, reason) == (
        ("traces", "otlp"),
        "the libraries for the export are not installed; run pip install 'umbel[otel]'",
    )
    assert list(check(config())) == []


@pytest.mark.parametrize(
    ("keys", "environ", "expected"),
    [
        ({"otlp": URL, "sample": "1%"}, {}, []),
        ({}, {}, []),
        (
            {"sample": "1%", "force": True},
            {},
            [
                "has no effect without otlp, or OTEL_EXPORTER_OTLP_ENDPOINT in the environment",
                "has no effect without otlp, or OTEL_EXPORTER_OTLP_ENDPOINT in the environment",
            ],
        ),
        ({"sample": "1%"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, []),
        (
            {"otlp": URL},
            {"OTEL_SDK_DISABLED": "true"},
            ["has no effect: OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER switches traces off"],
        ),
    ],
)
def test_keys_without_effect_are_warned_of(
    keys: Any, environ: Mapping[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert [reason for _, reason in warn(config(**keys))] == expected


async def test_a_collector_of_the_environment_without_the_libraries_is_no_failure(
    missing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", URL)
    ((path, reason),) = warn(config())
    assert path == ("traces",)
    assert reason.startswith("traces are not exported although the environment names a collector: the libraries")
    records = Records()
    async with exported_traces(config(), CountingRecorder(records)) as export:
        assert export is None
    (record,) = records.events
    assert record.event == "traces.off"


async def test_an_invalid_variable_of_opentelemetry_is_a_mistake_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(ConfigError, match="OpenTelemetry's variables: max_queue_size must be a positive integer"):
        async with exported_traces(config(otlp=URL), CountingRecorder(Records())):
            pass


async def test_an_export_gets_the_traces_while_it_is_open_and_leaves_no_thread() -> None:
    import threading

    before = {thread.name for thread in threading.enumerate()}
    counts = CountingRecorder(Records())
    with trio.fail_after(10):
        async with exported_traces(config(otlp=URL), counts) as export:
            assert export is not None
            assert counts.traces is not None
    assert counts.traces is None
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if name.startswith("Otel")]
