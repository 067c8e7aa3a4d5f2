"""The console of a program: who gets it, what it shows, and that neither the program nor the machine notices it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import pytest
import trio

from tests.unit.admin.test_side import get
from umbel.observe import Console, console


class Browser:
    """A client that has opened the URL once, as a browser does."""

    def __init__(self, url: str) -> None:
        self.address, _, self.query = url.removeprefix("http://").partition("/")
        self._cookie = ""

    async def open(self) -> int:
        status, head = await get(self.address, f"/{self.query}")
        self._cookie = head.partition("set-cookie: ")[2].partition(";")[0]
        return status

    async def content(self, target: str, method: str = "GET") -> tuple[int, bytes]:
        host, port = self.address.split(":")
        lines = f"host: {self.address}\r\norigin: http://{self.address}\r\ncookie: {self._cookie}\r\n"
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(f"{method} {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
            received = b"".join([piece async for piece in stream])
        head, _, content = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), content


def block() -> None:
    time.sleep(1.2)


def living() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("umbel-admin", "umbel-steps")]


async def waiting_for_bread() -> None:
    await trio.sleep_forever()


async def test_the_printed_url_opens_the_page_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with console(port=0):
        said = capsys.readouterr().err
        assert said.startswith("The console (this URL opens it once): http://127.0.0.1:")
        browser = Browser(said.split()[-1])
        assert (await browser.content("/tree"))[0] == 401
        assert [await browser.open(), await browser.open()] == [303, 401]
    assert living() == []


async def test_it_shows_the_tasks_of_the_program_and_no_page_of_a_gateway() -> None:
    said: list[str] = []
    async with trio.open_nursery() as nursery, console(port=0, announce=said.append) as shown:
        nursery.start_soon(waiting_for_bread)
        browser = Browser(shown.url())
        assert await browser.open() == 303
        _, tree = await browser.content("/tree")
        assert b"waiting_for_bread" in tree
        status, page = await browser.content("/")
        assert (status, b'data-topics="lints tree workers" data-commands=""' in page) == (200, True)
        assert b'href="/metrics"' not in page
        process = json.loads((await browser.content("/status"))[1])["process"]
        assert (process["state"], process["tasks"] > 1) == ("running", True)
        for target in ("/metrics", "/slow", "/slow/1-1", "/config", "/plan", "/readyz"):
            assert (await browser.content(target))[0] == 404
        assert (await browser.content("/ctl/stop", "POST"))[0] == 404
        assert (await browser.content("/events?topic=config"))[0] == 400
        nursery.cancel_scope.cancel(reason="the test is over")
    assert len(said) == 1
    with pytest.raises(RuntimeError, match="the console is not served at the moment"):
        shown.url()


async def test_it_answers_with_the_line_while_the_event_loop_is_blocked() -> None:
    lints: list[dict[str, object]] = []

    async def ask(url: str) -> None:
        browser = Browser(url)
        await browser.open()
        lints.extend(json.loads((await browser.content("/lints"))[1])["lints"])

    async with console(port=0, announce=lambda _: None) as shown:
        thread = threading.Thread(target=trio.run, args=[ask, shown.url()])
        thread.start()
        block()
        thread.join()
    [lint] = lints
    assert (lint["name"], lint["ongoing"]) == ("long-step", True)
    assert str(lint["where"]).endswith(" in block")


async def test_what_the_block_raises_is_not_wrapped() -> None:
    failure = ValueError("of the program")
    failure.__cause__ = cause = KeyError("why")
    with pytest.raises(ValueError, match="of the program") as caught:
        async with console(port=0, announce=lambda _: None):
            raise failure
    assert caught.value is failure
    assert caught.value.__cause__ is cause
    group = ExceptionGroup("of the program", [failure])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with console(port=0, announce=lambda _: None):
            raise group
    assert caught_group.value is group


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("g", [SystemExit(3)])])
async def test_an_exit_of_the_block_is_not_wrapped(failure: BaseException) -> None:
    with pytest.raises(type(failure)) as caught:
        async with console(port=0, announce=lambda _: None):
            raise failure
    assert caught.value is failure
    assert living() == []


async def test_what_the_block_raises_while_it_is_cancelled_is_not_lost() -> None:
    failure = ValueError("of the program")
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="of the program") as caught:
        async with console(port=0, announce=lambda _: None):
            scope.cancel(reason="the test cancels it")
            raise failure
    assert caught.value is failure
    assert living() == []


def test_a_program_on_asyncio_is_told_that_trio_is_needed() -> None:
    async def main() -> None:
        async with console(port=0):
            pytest.fail("it must not begin")

    with pytest.raises(RuntimeError, match=r"must be used in a task of trio\.run"):
        asyncio.run(main())
    assert living() == []


async def test_a_cancel_ends_it_and_leaves_nothing() -> None:
    with trio.move_on_after(0.05) as scope:
        async with console(port=0, announce=lambda _: None) as shown:
            url = shown.url()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert living() == []
    port = int(url.partition("127.0.0.1:")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)):  # The port is free.
        pass


async def test_a_port_that_is_taken_is_an_error_of_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: .*; another process, or another "):
            async with console(port=port):
                pytest.fail("it must not begin")
    assert living() == []


async def test_several_consoles_of_one_program_have_ports_of_their_own() -> None:
    async with console(announce=lambda _: None) as one, console(announce=lambda _: None) as other:
        consoles: list[Console] = [one, other]
        ports = {each.url().partition("/?")[0] for each in consoles}
        assert len(ports) == 2
        for each in consoles:
            assert await Browser(each.url()).open() == 303
