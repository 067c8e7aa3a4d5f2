"""``auth/jwt/key_source.py``: when keys are fetched, how long they hold, and what is recorded. In virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.auth.providers import FIRST, SECOND, Provider, hang, source
from tests.support.auth.tokens import ISSUER, jwk, jwks, private_key
from tests.support.logs.records import Records
from umbel.auth.jwt.key_set import SIZE_MAX
from umbel.auth.jwt.key_source import FETCH_SECONDS, PAUSE_MAX, FetchError, KeySource


@asynccontextmanager
async def running(keys: KeySource, provider: Provider) -> AsyncIterator[None]:
    """The source runs, and has made its first fetch or waits for an answer that does not come."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run, provider)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


def ids(keys: KeySource) -> list[str | None] | None:
    found = keys.key_set
    return None if found is None else [key.key_id for key in found.keys]


def events(records: Records) -> list[tuple[str, str]]:
    return [(each.level, each.event) for each in records.logged]


async def test_keys_are_fetched_at_the_start_and_every_refresh(autojump_clock: trio.abc.Clock) -> None:
    keys, provider = source(refresh=600.0), Provider()
    assert (ids(keys), keys.has_keys, keys.state) == (None, False, "none")

    async with running(keys, provider):
        assert (ids(keys), keys.has_keys, keys.state) == (["a"], True, "ok")
        await keys.wait_for_first_keys()
        await trio.sleep(3600)

    pauses = [later - earlier for earlier, later in zip(provider.times, provider.times[1:], strict=False)]
    assert len(pauses) in (6, 7)
    assert all(540 <= pause <= 600 for pause in pauses)
    assert len(set(pauses)) > 1


async def test_an_unchanged_set_stays_the_same_object_and_a_changed_one_is_recorded(
    autojump_clock: trio.abc.Clock,
) -> None:
    records = Records()
    keys, provider = source(records), Provider()

    async with running(keys, provider):
        first = keys.key_set
        await trio.sleep(601)
        assert keys.key_set is first
        provider.answer = SECOND
        await trio.sleep(601)
        assert ids(keys) == ["a", "b"]

    assert events(records) == [("info", "auth.keys_changed")] * 2
    assert records.logged[1].fields["generation"] == 2
    assert keys.statistics().generation == 2


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (b"<!doctype html><title>Sign in</title>", "neither"),
        (b"", "neither"),
        (b"{}", "no JSON object with a list"),
        (b'{"keys":[]}', "no usable key"),
        (jwks(jwk(private_key("HS256"))), "no usable key"),
        (jwks(private_key("ES256").as_dict(private=True)), "private part"),
        (b" " * (SIZE_MAX + 1), "larger than"),
        (jwks(*[jwk(private_key("ES256"))] * 101), "more than 100"),
        (FetchError("the upstream id answered 500"), "answered 500"),
        (RuntimeError("a bug with secrets"), "the fetch crashed"),
        (hang, "no answer within 5 s"),
    ],
    ids=lambda value: str(value)[:15] if isinstance(value, str) else "",
)
async def test_a_provider_that_lies_or_hangs_leaves_the_last_keys(
    lie: object, reason: str, autojump_clock: trio.abc.Clock
) -> None:
    records = Records()
    keys, provider = source(records), Provider()

    async with running(keys, provider):
        provider.answer = lie  # type: ignore[assignment]
        await trio.sleep(610)
        assert (ids(keys), keys.state) == (["a"], "failing")
        found = keys.statistics()
        assert reason in found.last_error
        assert found.failures > 0
        provider.answer = SECOND
        await trio.sleep(60)
        assert (ids(keys), keys.state, keys.statistics().last_error) == (["a", "b"], "ok", "")

    assert events(records)[1] == ("warning", "auth.keys_failed")
    assert "secrets" not in str(records.logged[1].message)


async def test_stale_keys_are_used_until_their_time_is_over_and_then_none(autojump_clock: trio.abc.Clock) -> None:
    records = Records()
    keys, provider = source(records, refresh=100.0, stale_if_error=200.0), Provider()

    async with running(keys, provider):
        provider.answer = FetchError("500")
        await trio.sleep(300)
        assert (ids(keys), keys.state) == (["a"], "failing")
        await trio.sleep(FETCH_SECONDS + 0.1)
        assert (ids(keys), keys.state) == (None, "none")
        await trio.sleep(100)
        assert ("error", "auth.keys_failed") in events(records)
        provider.answer = FIRST
        await trio.sleep(PAUSE_MAX)
        assert (ids(keys), keys.state) == (["a"], "ok")


async def test_pauses_after_failures_grow_to_a_bound_and_records_are_one_a_minute(
    autojump_clock: trio.abc.Clock,
) -> None:
    records = Records()
    keys, provider = source(records), Provider(FetchError("500"))

    async with running(keys, provider):
        await trio.sleep(3600)

    pauses = [later - earlier for earlier, later in zip(provider.times, provider.times[1:], strict=False)]
    assert 0.5 <= pauses[0] <= 1.0
    assert max(pauses) <= PAUSE_MAX
    assert 60 < len(pauses) < 150
    assert 30 <= len(records.logged) <= 61
    assert set(events(records)) == {("error", "auth.keys_failed")}


async def test_10_000_unknown_keys_make_one_fetch_per_cool_down(autojump_clock: trio.abc.Clock) -> None:
    keys, provider = source(cooldown=30.0), Provider()
    results: list[bool] = []

    async def renew() -> None:
        results.append(await keys.renew())

    async with running(keys, provider):
        await trio.sleep(31)
        async with trio.open_nursery() as nursery:
            for _ in range(10_000):
                nursery.start_soon(renew)
        assert (len(provider.times), results.count(True)) == (2, 10_000)

        results.clear()
        for _ in range(100):
            await renew()
            await trio.sleep(0.2)
        assert (len(provider.times), results.count(True)) == (2, 0)
        for _ in range(200):
            await renew()
            await trio.sleep(0.5)
        assert results.count(True) == len(provider.times) - 2 == 3
        pauses = [later - earlier for earlier, later in zip(provider.times, provider.times[1:], strict=False)]
        assert min(pauses) >= 30.0


async def test_a_renewal_joins_the_fetch_under_way(autojump_clock: trio.abc.Clock) -> None:
    opened = trio.Event()

    async def slow() -> bytes:
        await opened.wait()
        return SECOND

    keys, provider = source(), Provider(slow)
    results: list[bool] = []

    async def renew() -> None:
        results.append(await keys.renew())

    async with running(keys, provider), trio.open_nursery() as nursery:
        nursery.start_soon(renew)
        nursery.start_soon(renew)
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        opened.set()

    assert results == [True, True]
    assert len(provider.times) == 1


async def test_a_renewal_that_fails_returns_false_after_the_time_limit(autojump_clock: trio.abc.Clock) -> None:
    keys, provider = source(), Provider()

    async with running(keys, provider):
        await trio.sleep(31)
        provider.answer = hang
        began = trio.current_time()
        assert await keys.renew() is False
        assert trio.current_time() - began == pytest.approx(FETCH_SECONDS)
        assert ids(keys) == ["a"]
        # The cool-down counts from the end of the fetch that failed.
        began = trio.current_time()
        assert await keys.renew() is False
        assert trio.current_time() == began


async def test_a_cancelled_waiter_ends_no_fetch(autojump_clock: trio.abc.Clock) -> None:
    opened = trio.Event()

    async def slow() -> bytes:
        await opened.wait()
        return SECOND

    keys, provider = source(), Provider()

    async with running(keys, provider):
        await trio.sleep(31)
        provider.answer = slow
        with trio.move_on_after(1.0) as scope:
            await keys.renew()
        assert scope.cancelled_caught
        opened.set()
        await trio.testing.wait_all_tasks_blocked()
        assert ids(keys) == ["a", "b"]


async def test_without_its_task_nothing_is_fetched_and_waiters_get_false(autojump_clock: trio.abc.Clock) -> None:
    keys, provider = source(), Provider(hang)
    assert await keys.renew() is False

    results = []
    async with trio.open_nursery() as nursery:

        async def renew() -> None:
            results.append(await keys.renew())

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(keys.run, provider)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(renew)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

    assert results == [False]
    assert provider.in_flight == 0


async def test_two_tasks_cannot_run_one_source(autojump_clock: trio.abc.Clock) -> None:
    keys = source()

    async with running(keys, Provider()):
        with pytest.raises(RuntimeError, match="another task"):
            await keys.run(Provider())


async def test_the_snapshot_shows_the_source_and_its_age(autojump_clock: trio.abc.Clock) -> None:
    weak = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    keys, provider = source(), Provider(jwks(jwk(private_key("ES256"), kid="a"), weak))

    async with running(keys, provider):
        await trio.sleep(7)
        found = keys.statistics()

    assert (found.issuer, found.source, found.keys, found.generation) == (ISSUER, "upstream id /jwks.json", 1, 1)
    assert found.age == pytest.approx(7)
    assert len(found.left_out) == 1
    assert (found.fetches, found.failures, found.state) == (1, 0, "ok")
