"""Workers that cannot start, die again and again, or hang: restarts, messages and exit statuses."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.support.process.processes import PYTHON, ended
from tests.support.process.supervised import APP, supervised, write_app

SERVE = (PYTHON, "-m", "umbel", "serve", "-w", "2", "--bind", "127.0.0.1:0")


async def test_an_import_error_at_the_start_exits_with_3_and_prints_one_traceback(tmp_path: Path) -> None:
    write_app(tmp_path, "import nothing_of_that_name\n")

    status, output = await ended(*SERVE, "served:app", cwd=tmp_path)

    assert status == 3
    assert output.count("Traceback (most recent call last)") == 1
    assert output.count("No module named 'nothing_of_that_name'") >= 1
    assert "load failure" in output


async def test_a_configuration_error_of_the_lifespan_ends_the_start_with_78(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text(
        '[server]\nhooks = "python"\n\n[upstreams.up]\nurls = ["http://127.0.0.1:9"]\n\n'
        '[[routes]]\npath = "/r"\ncalls.part = { upstream = "up", path = "/" }\n'
    )
    write_app(
        tmp_path,
        "from umbel import Umbel\n\napp = Umbel.from_file()\n\n\n@app.before_request\nasync def login(): ...\n",
    )
    sentence = 'umbel.toml:7: routes[0]: has no auth, and hooks = "python" skips'

    status, output = await ended(*SERVE, "served:app", cwd=tmp_path)
    assert (status, "boot failure" in output) == (78, False)
    assert sentence in output

    status, output = await ended(PYTHON, "-m", "umbel", "check", "--app", "served:app", cwd=tmp_path)
    assert status == 78
    assert output.startswith(sentence)


async def test_an_import_that_exits_with_78_ends_the_start_with_78_and_no_traceback(
    tmp_path: Path,
) -> None:
    sentence = "umbel.toml: cannot be read: there is no such file"  # As ``umbel.asgi`` reports it.

    status, output = await ended(*SERVE, "umbel.asgi:app", cwd=tmp_path)
    assert (status, "Traceback" in output) == (78, False)
    assert "ended: configuration (exit status 78), after " in output
    assert f"; {sentence}" in output

    status, output = await ended(PYTHON, "-m", "umbel", "check", "--app", "umbel.asgi:app", cwd=tmp_path)
    assert (status, "Traceback" in output) == (78, False)
    assert sentence in output


async def test_a_lifespan_that_fails_ends_the_start_with_3_and_its_message(tmp_path: Path) -> None:
    failing = 'await send({"type": "lifespan.startup.failed", "message": "the database is away"})'
    write_app(tmp_path, APP.replace('await send({"type": "lifespan.startup.complete"})', failing))

    status, output = await ended(*SERVE, "served:app", cwd=tmp_path)

    assert status == 3
    assert "boot failure" in output
    assert "the database is away" in output
    assert "Traceback" not in output


async def test_a_worker_that_is_not_ready_in_time_is_killed_and_ends_the_start(tmp_path: Path) -> None:
    never = 'await __import__("trio").sleep_forever()'
    write_app(tmp_path, APP.replace('await send({"type": "lifespan.startup.complete"})', never))

    status, output = await ended(*SERVE, "served:app", "--start-timeout", "6s", cwd=tmp_path)

    assert status == 3
    assert "ended: late (SIGABRT)" in output


async def test_configuration_errors_are_reported_before_any_socket_is_bound(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text('[supervisor]\nhang_timout = "1s"\nmax_rss = "12"\n')
    (tmp_path / "hypercorn.toml").write_text('graceful_timout = 3\nbind = "127.0.0.1:0"\n')

    status, output = await ended(PYTHON, "-m", "umbel", "serve", "-w", "2", cwd=tmp_path)

    assert status == 78
    assert "umbel.toml:2: supervisor.hang_timout: " in output
    assert "umbel.toml:3: supervisor.max_rss: " in output
    assert "hypercorn.toml:1: graceful_timout: " in output
    assert output.count("\n") == 3

    status, output = await ended(*SERVE[:4], "-w", "10000", "served:app", cwd=tmp_path)
    assert (status, output) == (78, "--workers: 10000 workers cannot be started; the number is from 1 to 256\n")


async def test_workers_that_die_again_and_again_are_delayed_then_degrade_the_master(
    tmp_path: Path,
) -> None:
    dies = 'await send({"type": "lifespan.startup.complete"})\n'
    write_app(tmp_path, APP.replace(dies, dies + "    await trio.sleep(0.2)\n    os._exit(9)\n"))
    options = ("--intensity-restarts", "1", "--restart-max-delay", "300ms")
    async with supervised(tmp_path, *options, ready=False) as master:
        line = await master.line("master.degraded")
        answer = await master.ask(command="status")

        assert "more than 2 restarts in 60 s" in line
        assert answer["master"]["state"] == "degraded"
        assert "degraded: too many restarts" in answer["master"]["summary"]
        assert {slot["last_exit"] for slot in answer["slots"]} == {"crash (exit status 9)"}
        assert master.child.output.count("restarts in") >= 2


async def test_too_many_restarts_end_the_master_with_1_if_configured(tmp_path: Path) -> None:
    dies = 'await send({"type": "lifespan.startup.complete"})\n'
    write_app(tmp_path, APP.replace(dies, dies + "    await trio.sleep(0.1)\n    os._exit(9)\n"))
    options = ("--intensity-restarts", "1", "--restart-max-delay", "100ms", "--on-intensity", "exit")

    status, output = await ended(*SERVE, "served:app", *options, cwd=tmp_path)

    assert status == 1
    assert "master.stopping: more than 2 restarts in 60 s" in output


async def test_a_worker_with_a_blocked_loop_is_replaced_and_its_place_recorded(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("")
    line_number = 1 + APP.splitlines().index("        time.sleep(600)  # the line that blocks")
    async with supervised(tmp_path, "--hang-timeout", "1s") as master, trio.open_nursery() as nursery:
        nursery.start_soon(master.get, "/block")
        line = await master.line("ended: hang (SIGABRT)")
        assert f"its event loop was blocked at {tmp_path}/served.py:{line_number} in http" in line
        await master.line("worker.ready")
        # The record has the whole stack, as stderr has.
        with trio.fail_after(20):
            while "the stack" not in _hang_record(tmp_path):
                await trio.testing.wait_all_tasks_blocked(0.02)


def _hang_record(directory: Path) -> str:
    text = (directory / "logs" / "app.jsonl").read_text()
    found = [line for line in text.splitlines() if '"worker.ended"' in line and "hang" in line]
    return "the stack" if found and "most recent call first" in found[0] else ""
