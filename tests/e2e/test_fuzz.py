"""The server against the stored corpus and a fixed number of mutations. ``make fuzz`` runs for any time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import adversarial
from tests.fuzz.corpus import PROTOCOLS, stored
from tests.fuzz.drip import EVERY_S, fuzz_drips, fuzz_stored
from tests.fuzz.run import KINDS, LIMITS, SETTINGS, Input, fuzz, try_all
from tests.support.process.launched_workers import LAUNCHERS, Launched
from tests.support.server.raw_server_process import serving_raw

SEED = 1
COUNTS = {"http1": 400, "http2": 200}


@pytest.fixture(scope="module", params=LAUNCHERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with serving_raw(request.param, tmp_path_factory.mktemp("fuzz"), LIMITS, settings=SETTINGS) as served:
        yield served.server


@pytest.mark.parametrize("ending", ["half-close", "close", "reset"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_stored_corpus_breaks_no_invariant(server: Launched, protocol: str, ending: str) -> None:
    await try_all(server, [Input(protocol, data, ending=ending) for data in stored(protocol).values()])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_mutations_of_the_corpus_break_no_invariant(server: Launched, protocol: str) -> None:
    await fuzz(server, protocol, SEED, COUNTS[protocol] // len(LAUNCHERS))


@pytest.fixture
def roomy_server(tmp_path: Path) -> Iterator[Launched]:
    with serving_raw(LAUNCHERS[0], tmp_path, LIMITS, settings=SETTINGS, max_body=adversarial.MAX_BODY) as served:
        yield served.server


async def test_adversarial_requests_do_not_keep_the_worker_busy(roomy_server: Launched) -> None:
    await fuzz(roomy_server, "adversarial", SEED, 100)


async def test_a_path_of_secret_names_and_json_of_odd_tokens_take_little_cpu_time(roomy_server: Launched) -> None:
    json = b"," * 200_001 + b'"' + b'\\"' * 399_000
    floats = b"[" + b"1e308," * 166_000 + b"1]"
    head = b"POST /echo HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    path = b"GET /=" + b"secret.a." * 900 + b" HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
    requests = [path, *(head % len(body) + body for body in (json, floats))]
    await try_all(roomy_server, [Input("http1", data, costs=True) for data in requests])


@pytest.mark.parametrize("every", EVERY_S)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stored_input_sent_byte_by_byte_ends_in_time(protocol: str, every: float) -> None:
    fuzz_stored(protocol, every)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_connection_that_sends_bytes_slowly_for_ever_ends_in_time(protocol: str) -> None:
    fuzz_drips(protocol, SEED, 100)


@pytest.mark.parametrize("protocol", KINDS)
def test_equal_seeds_make_equal_inputs(protocol: str) -> None:
    first, again = ([Input.made(protocol, rng) for _ in range(20)] for rng in (random.Random(7), random.Random(7)))
    assert first == again
    assert len({given.data for given in first}) > 15
