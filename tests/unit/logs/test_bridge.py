"""The bridge from the standard library's logging and warnings to a log."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from tests.support.logs.sinks import MemorySink, memory_log
from umbel.logs import bound, bridge


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("umbel.test.bridge")
    yield logger
    logger.propagate = True
    assert logging.getLogger().handlers == [] or all(
        type(handler).__module__ != "umbel.logs.bridge" for handler in logging.getLogger().handlers
    )


async def test_a_bridged_record_has_logger_message_and_place(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    async with memory_log(sink) as log:
        with bridge(log, level="INFO"), bound(request_id="r-1"):
            logger.warning("%s of %d", "one", 2, extra={"tenant": "acme", "password": "hunter2"})
            logger.debug("unheard")

    record = sink.records[0]
    assert {name: record[name] for name in ("event", "level", "msg", "logger", "tenant", "request_id", "password")} == {
        "event": "logging",
        "level": "warning",
        "msg": "one of 2",
        "logger": "umbel.test.bridge",
        "tenant": "acme",
        "request_id": "r-1",
        "password": "[redacted]",
    }
    assert record["code.file.path"] == __file__
    assert record["code.function.name"].startswith("test_a_bridged_record")
    assert len(sink.records) == 2


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (10, "debug"),
        (15, "debug"),
        (20, "info"),
        (25, "info"),
        (30, "warning"),
        (40, "error"),
        (50, "critical"),
        (99, "critical"),
    ],
)
async def test_a_level_number_becomes_the_highest_level_that_it_reaches(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock, number: int, level: str
) -> None:
    async with memory_log(sink, level="debug") as log:
        with bridge(log, level=1):
            logger.log(number, "said")

    assert sink.records[0]["level"] == level


async def test_a_bridged_exception_has_its_traceback_and_every_leaf(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    async with memory_log(sink) as log:
        with bridge(log, level=logging.INFO):
            try:
                raise ExceptionGroup("both", [KeyError("left"), ExceptionGroup("deep", [OSError("right")])])
            except ExceptionGroup:
                logger.exception("failed")

    record = sink.records[0]
    assert record["leaves"] == ["builtins.KeyError: 'left'", "builtins.OSError: right"]
    assert "test_bridge.py" in record["exception.stacktrace"]


async def test_an_exception_that_was_recorded_before_is_bridged_without_traceback(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    error = ValueError("once")
    async with memory_log(sink) as log:
        with bridge(log, level=logging.INFO):
            log.error("request.crashed", error=error)
            logger.error("Exception on request", exc_info=error)
            logger.error("and again", exc_info=ExceptionGroup("g", [error]))

    first, again, group, _ = sink.records
    assert "exception.stacktrace" in first
    assert (again["exception.type"], again["exception.message"]) == ("builtins.ValueError", "once")
    assert "exception.stacktrace" not in again
    assert "exception.stacktrace" not in group
    assert group["leaves"] == ["builtins.ValueError: once"]


async def test_without_repeats_recorded_exceptions_are_left_out(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    error = ValueError("once")
    async with memory_log(sink) as log:
        with bridge(log, "", "umbel.test", repeats=False):
            logger.error("first", exc_info=error)
            logger.error("Exception on request", exc_info=error)
            logger.error("other")
            logger.info("not let through")

    assert [record.get("msg") for record in sink.records] == ["first", "other", None]


async def test_warnings_are_bridged_and_all_settings_restored_at_the_end(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    shown, level, handlers = warnings.showwarning, logging.getLogger().level, list(logging.getLogger().handlers)
    async with memory_log(sink) as log:
        with bridge(log, level=20), warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("mind the gap", UserWarning, stacklevel=1)

    assert sink.records[0]["logger"] == "py.warnings"
    assert "mind the gap" in sink.records[0]["msg"]
    assert (warnings.showwarning, logging.getLogger().level, logging.getLogger().handlers) == (shown, level, handlers)


async def test_warnings_are_recorded_also_if_only_another_logger_is_bridged(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    async with memory_log(sink) as log:
        with bridge(log, logger.name), warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("mind the gap", UserWarning, stacklevel=1)

    assert [record.get("logger") for record in sink.records] == ["py.warnings", None]


async def test_arguments_that_do_not_fit_raise_and_print_nothing(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with memory_log(sink) as log:
        with bridge(log, logger.name, level=20):
            logger.propagate = False  # pytest's own handler raises
            logger.info("%d %d", "no number")
            logger.info("%s", "\udcff\n\x1b[31m")
            logger.info("extra", extra={"msg_": object(), "logger": "mine"})

    first, second, third, _ = sink.records
    assert first["msg"] == "%d %d ('no number',)"
    assert "\x1b" not in bytes(sink.data).decode()
    assert second["msg"].startswith("\\udcff")
    assert (third["logger"], third["extra.logger"]) == ("umbel.test.bridge", "mine")
    assert capsys.readouterr() == ("", "")


async def test_a_filter_of_the_handler_is_applied(
    sink: MemorySink, logger: logging.Logger, autojump_clock: MockClock
) -> None:
    async with memory_log(sink) as log:
        with bridge(log, "umbel.test", level=20) as handler:
            handler.addFilter(lambda record: "secret" not in record.getMessage())
            logger.info("a secret")
            logger.info("fine")
            logging.getLogger("elsewhere").error("not below")

    assert [record.get("msg") for record in sink.records] == ["fine", None]


async def test_concurrent_threads_and_tasks_lose_and_mix_no_records(sink: MemorySink, logger: logging.Logger) -> None:
    async with memory_log(sink, max_queue_records=100_000) as log:
        with bridge(log, level=logging.INFO):

            def in_thread(name: int) -> None:
                for number in range(100):
                    logger.info("thread %d %d", name, number)

            async def in_task(name: int) -> None:
                with bound(request_id=f"task-{name}"):
                    for number in range(20):
                        logger.info("task %d %d", name, number)
                        await trio.lowlevel.checkpoint()

            threads = [threading.Thread(target=in_thread, args=(name,)) for name in range(8)]
            for thread in threads:
                thread.start()
            async with trio.open_nursery() as nursery:
                for name in range(100):
                    nursery.start_soon(in_task, name)
            for thread in threads:
                await trio.to_thread.run_sync(thread.join)

    records = sink.records
    assert [record["seq"] for record in records] == list(range(1, 8 * 100 + 100 * 20 + 2))
    for name in range(100):
        mine = [record for record in records if record.get("request_id") == f"task-{name}"]
        assert [record["msg"] for record in mine] == [f"task {name} {number}" for number in range(20)]
    for name in range(8):
        said = [record["msg"] for record in records if record.get("msg", "").startswith(f"thread {name} ")]
        assert said == [f"thread {name} {number}" for number in range(100)]
