"""``umbel schema``: print the configuration's JSON Schema, or its reference in Markdown (``docs/config.md``)."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of the configuration.")
@click.option("--markdown", is_flag=True, help="Print the reference of all sections and keys in Markdown instead.")
def schema(markdown: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the configuration.

    Editors with TOML support use it for completion and checks: save it as umbel.schema.json and write
    "#:schema ./umbel.schema.json" as the first line of umbel.toml.
    """
    if markdown:
        from .reference import reference

        click.echo(reference(), nl=False)
    else:
        from ..config.schema.reference.jsonschema import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
