"""``umbel auth``: make an API key, or the digest of one, for the file of a section ``[auth.NAME]``."""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
import sys
import time

import click

from ..core.diagnostics.redact import API_KEY_PREFIX


@click.group(short_help="Make an API key, or the digest of one.")
def auth() -> None:
    """Make an API key, or the digest of one, for the file of a section [auth.NAME] with kind = "api-key".

    The file holds the SHA-256 of each key, so that the file itself opens nothing.
    """


@auth.command("new-key")
@click.argument("key_id", metavar="ID")
@click.option("--scope", "scopes", metavar="SCOPE", multiple=True, help="A scope that the key grants; may be repeated.")
@click.option("--expires", metavar="DATE", help="When the key expires: 2027-01-31 (00:00 UTC) or 2027-01-31T12:00:00Z.")
@click.option(
    "--file", "file", metavar="FILE", type=click.Path(), help="Add the table to this file of keys, or make the file."
)
@click.option("--json", "as_json", is_flag=True, help="Print key and table as one JSON object on stdout.")
def new_key(key_id: str, scopes: tuple[str, ...], expires: str | None, file: str | None, as_json: bool) -> None:
    """Make a key for ID, who or what it is given to.

    The key goes to stdout and is shown only this once. Its table is added to FILE, whose mode and owner stay; a new
    file can be read by its owner only. If FILE has a mistake, no key is made. Without --file the table goes to stderr.
    """
    from ..auth.keys.key_file import KeyFileError, mistake_in_id, mistake_in_scopes
    from ..auth.keys.key_file_writer import add_table

    if reason := mistake_in_id(key_id):
        raise click.BadParameter(reason, param_hint="ID")
    if reason := mistake_in_scopes([*scopes]):
        raise click.BadParameter(reason, param_hint="--scope")
    end = None if expires is None else _end(expires)
    key = API_KEY_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode("ascii")).hexdigest()
    lines = ["[[keys]]", f"id = {_text(key_id)}", f'sha256 = "{digest}"']
    if scopes:
        lines.append(f"scopes = [{', '.join(map(_text, scopes))}]")
    if end is not None:
        lines.append(f"expires = {end}")
    shown = key
    if as_json:
        table = {"id": key_id, "sha256": digest, "scopes": scopes}
        shown = json.dumps({"key": key, **table, **({} if end is None else {"expires": end})}, ensure_ascii=False)
    if file is None:
        click.echo(shown)
        if not as_json:
            click.echo("\n".join(lines), err=True)
        return
    try:
        # Printed before the file is replaced: no key that nobody has seen is ever in force.
        add_table(file, "\n".join(lines) + "\n", lambda: _print_key(shown))
    except KeyFileError as error:
        more = len(error.mistakes) - 1
        rest = f" (and {more} more mistakes)" if more else ""
        raise click.ClickException(f"no key was made: {file}: {error.mistakes[0]}{rest}") from None


def _print_key(shown: str) -> None:
    """Print a new key.

    Raises:
        click.ClickException: stdout takes no text.
    """
    try:
        click.echo(shown)
    except OSError as error:
        raise click.ClickException(f"no key was made: it cannot be printed: {error.strerror}") from None


@auth.command("hash")
def hash_() -> None:
    """Print the SHA-256 of the key on stdin, for the file of keys.

    A line end behind the key is not a part of it. On a terminal the key is not shown while it is typed.
    """
    from ..auth.keys.api_keys import mistake_in_key

    if sys.stdin.isatty():
        key = str(click.prompt("key", hide_input=True, err=True)).encode()
    else:
        key = sys.stdin.buffer.read(2**16).removesuffix(b"\n").removesuffix(b"\r")
    if reason := mistake_in_key(key):
        raise click.ClickException(reason)
    click.echo(hashlib.sha256(key).hexdigest())


def _end(text: str) -> str:
    """Return a date or a time as TOML writes it.

    Raises:
        click.BadParameter: it is none, or is past.
    """
    from ..auth.keys.key_file import unix_time

    try:
        end: datetime.date = (
            datetime.date.fromisoformat(text)
            if len(text) == len("2027-01-31")
            else datetime.datetime.fromisoformat(text)
        )
    except ValueError:
        raise click.BadParameter("write a date such as 2027-01-31", param_hint="--expires") from None
    if (unix_time(end) or 0.0) <= time.time():
        raise click.BadParameter("is past", param_hint="--expires")
    return end.isoformat()


def _text(value: str) -> str:
    """Return a text as TOML writes it. Printable text needs the escapes of JSON only."""
    return json.dumps(value, ensure_ascii=False)
