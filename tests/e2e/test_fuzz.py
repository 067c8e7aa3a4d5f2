"""The stored corpus, and a bounded number of inputs made from it. ``make fuzz`` goes on for as long as it is given."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.fuzz.corpus import PROTOCOLS, stored
from tests.fuzz.drip import EVERY_S, fuzz_drips, fuzz_stored
from tests.fuzz.run import LIMITS, SETTINGS, Input, fuzz, try_all
from tests.support.launching import LAUNCHERS, Launched
from tests.support.rawserving import serving_raw

SEED = 1
COUNTS = {"http1": 400, "http2": 200}


@pytest.fixture(scope="module", params=LAUNCHERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with serving_raw(request.param, tmp_path_factory.mktemp("fuzz"), LIMITS, settings=SETTINGS) as served:
        yield served.server


@pytest.mark.parametrize("ending", ["half-close", "close", "reset"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_stored_corpus_harms_nobody(server: Launched, protocol: str, ending: str) -> None:
    await try_all(server, [Input(protocol, data, ending=ending) for data in stored(protocol).values()])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_mutations_of_the_corpus_harm_nobody(server: Launched, protocol: str) -> None:
    await fuzz(server, protocol, SEED, COUNTS[protocol] // len(LAUNCHERS))


@pytest.mark.parametrize("every", EVERY_S)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_stored_corpus_ends_in_time_byte_by_byte(protocol: str, every: float) -> None:
    fuzz_stored(protocol, every)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_connections_that_drip_any_script_for_ever_end_in_time(protocol: str) -> None:
    fuzz_drips(protocol, SEED, 100)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_seed_makes_the_same_inputs_again(protocol: str) -> None:
    first, again = ([Input.made(protocol, rng) for _ in range(20)] for rng in (random.Random(7), random.Random(7)))
    assert first == again
    assert len({given.data for given in first}) > 15
