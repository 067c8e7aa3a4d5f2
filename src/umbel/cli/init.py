"""``umbel init``: write the files of a new project into a folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

STARTER = Path(__file__).parents[1] / "demo" / "starter"
_NAMES = {"gitignore": ".gitignore", "dockerignore": ".dockerignore", "test_dashboard.txt": "test_dashboard.py"}
"""The final names of files that are packaged under other names: tools would take them for parts of Umbel itself."""


@click.command(short_help="Write the files of a new project.")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write the files of a new project into FOLDER (default: the current one), which is created if it does not exist.

    They are umbel.toml with a route of two calls, umbel.schema.json for editors, hypercorn.toml, a Dockerfile, and
    a test of the route. If one of the files exists already, nothing is written.
    """
    from ..config.schema.reference.jsonschema import json_schema

    files = {
        _NAMES.get(path.name, path.name): path.read_text(encoding="utf-8")
        for path in sorted(STARTER.iterdir())
        if path.is_file()
    }
    files["umbel.schema.json"] = json.dumps(json_schema(), indent=2) + "\n"
    there = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise click.ClickException(f"{folder} has {', '.join(there)} already; name a folder without these files")
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
