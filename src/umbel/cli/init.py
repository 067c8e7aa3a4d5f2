"""``umbel init``: write the files to begin with into a folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

STARTER = Path(__file__).parents[1] / "demo" / "starter"
_NAMES = {"gitignore": ".gitignore", "dockerignore": ".dockerignore", "test_dashboard.txt": "test_dashboard.py"}
"""The names of files that tools would take for Umbel's own under these names."""


@click.command(short_help="Write the files to begin with.")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write the files to begin with into FOLDER, which is made if it is not there; by default the current one.

    They are umbel.toml with a route of two calls, umbel.schema.json for editors, hypercorn.toml, a Dockerfile, and
    a test of the route that passes. A file that is there already is never changed: then nothing is written.
    """
    from ..config.schema.jsonschema import json_schema

    files = {
        _NAMES.get(path.name, path.name): path.read_text(encoding="utf-8")
        for path in sorted(STARTER.iterdir())
        if path.is_file()
    }
    files["umbel.schema.json"] = json.dumps(json_schema(), indent=2) + "\n"
    there = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise click.ClickException(f"{folder} has {', '.join(there)} already; name a folder that has none of these")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.ClickException(f"cannot write into {folder}: {error.strerror}") from error
    click.echo(f"wrote {', '.join(files)} into {folder}")
    place = "" if folder == Path() else f"cd {click.format_filename(folder)}; "
    click.echo(f'next: "{place}umbel serve", with "umbel demo --port 8001" in another terminal for its upstreams')
