"""``umbel lab``: short lessons in structured concurrency, run here and now."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..labs.model import Lab, Run

_TEXT_MAX = 100


@click.command(short_help="Show how asyncio and trio differ, in short experiments.")
@click.argument("number", type=click.IntRange(min=1), required=False)
@click.option("--no-question", is_flag=True, help="Do not ask before the run.")
@click.option("--source", is_flag=True, help="Print the three programs too.")
@click.option("--json", "as_json", is_flag=True, help="Print what the programs did as JSON, and nothing else.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the lab as one HTML file, which needs no network.",
)
@click.option("--serve", is_flag=True, help="Serve all labs to a browser of this machine, and run them when asked to.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="The port of --serve.  [default: any free one]"
)
def lab(
    number: int | None,
    no_question: bool,
    source: bool,
    as_json: bool,
    html: Path | None,
    serve: bool,
    port: int | None,
) -> None:
    """List the labs, or run the lab with this NUMBER, or serve all.

    A lab runs one story as three programs: with asyncio.gather or create_task, with asyncio.TaskGroup, and with a trio
    nursery. It asks a question, runs the programs, and shows what their tasks did on one time axis.
    """
    import trio

    from ..labs.model import lab_of
    from ..labs.run import LabError, run_lab

    if serve:
        if number is not None or no_question or source or as_json or html is not None:
            raise click.UsageError("--serve goes with --port only; the pages show all labs.")
        _serve(port or 0)
        return
    if port is not None:
        raise click.UsageError("--port has an effect only with --serve.")
    if number is None:
        if no_question or source or html is not None:
            raise click.UsageError("Say which lab: umbel lab NUMBER.")
        _list(as_json)
        return
    try:
        chosen = lab_of(number)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    quiet = as_json or html is not None
    if not quiet:
        _introduce(chosen, ask=not no_question)
    try:
        runs = trio.run(run_lab, chosen)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        from ..labs.document import as_document

        click.echo(as_document(chosen, runs))
    if html is not None:
        from ..labs.page import page_of

        try:
            html.write_text(page_of(chosen, runs), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html} cannot be written: {error.strerror}.") from error
        click.echo(f"Written: {html}", err=as_json)
    if not quiet:
        _show(chosen, runs, source)


def _serve(port: int) -> None:
    """Serve the labs on loopback until SIGINT or SIGTERM."""
    from ..admin.listeners import tcp_listener
    from ..labs.site import serve_labs
    from .running import run

    try:
        listener = tcp_listener(f"127.0.0.1:{port}")
    except OSError as error:
        raise click.ClickException(f"{error.strerror}.") from error
    click.echo(f"The labs: http://{listener.address}/ (Ctrl-C ends them)")
    try:
        run(partial(serve_labs, listener, lambda event, sentence: click.echo(f"{event}: {sentence}", err=True)))
    finally:
        listener.close()


def _list(as_json: bool) -> None:
    import msgspec

    from ..labs.model import all_labs

    labs = list(all_labs())
    if as_json:
        rows = [{"number": each.number, "title": each.title, "phenomenon": each.phenomenon} for each in labs]
        click.echo(msgspec.json.encode(rows))
        return
    width = max(len(each.title) for each in labs)
    for each in labs:
        click.echo(f"{each.number:3}  {each.title:{width}}  {each.phenomenon}")
    click.echo("\nRun one with: umbel lab NUMBER. In a browser: umbel lab --serve")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _paragraph(text: str) -> None:
    from ..labs.terminal import fill

    click.echo("\n".join(fill(text, min(_width(), _TEXT_MAX))) + "\n")


def _introduce(lab: Lab, ask: bool) -> None:
    """Print the story and the question; on a terminal, wait for an answer."""
    click.secho(f"Lab {lab.number}: {lab.title}", bold=True)
    click.echo(f"{lab.phenomenon}\n")
    _paragraph(lab.story)
    if not ask:
        return
    _paragraph(f"Question: {lab.question}")
    # Letters: many choices are numbers.
    letters = ascii_lowercase[: len(lab.choices)]
    for letter, choice in zip(letters, lab.choices, strict=True):
        click.echo(f"  {letter}  {choice}")
    click.echo()
    if not _is_terminal():
        return
    wanted = click.Choice([*letters, ""], case_sensitive=False)
    given = click.prompt(
        f"Your answer, {letters[0]} to {letters[-1]} (Enter to see)",
        default="",
        type=wanted,
        show_default=False,
        show_choices=False,
    )
    if given:
        right = letters.index(given) == lab.right
        click.echo("Right." if right else f"Wrong. The answer is: {lab.choices[lab.right]}. See why:")
    click.echo()


def _show(lab: Lab, runs: dict[str, Run], source: bool) -> None:
    from ..labs import terminal

    for line in terminal.panes(lab, runs, _width()):
        click.echo(line)
    click.echo()
    if source:
        for line in terminal.sources(lab):
            click.echo(line)
    for line in terminal.figures(lab, runs, min(_width(), _TEXT_MAX)):
        click.echo(line)
    click.echo()
    click.secho("Answer", bold=True)
    _paragraph(lab.answer)
    click.secho("Why", bold=True)
    for part in lab.why:
        _paragraph(part)
    if not source:
        click.echo(f"The programs: umbel lab {lab.number} --source. As a page: umbel lab {lab.number} --html FILE.")
