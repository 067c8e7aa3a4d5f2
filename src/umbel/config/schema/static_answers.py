"""The sections of answers without an upstream, ``respond`` and ``redirect``, and the constraints between their keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .constraints import ConstraintViolation, enforce
from .section import Section
from .values.types import Headers, JsonValue, RedirectTarget, RespondStatus
from .values.units import Delay

_WITHOUT_CONTENT = frozenset({204, 205})


def _respond_constraints(respond: Respond) -> Iterator[ConstraintViolation]:
    """Yield the violations of a response: several bodies, a body that its status forbids, a field with other bytes."""
    bodies = [
        key
        for key, value in (("json", respond.json_), ("text", respond.text), ("file", respond.file))
        if value is not None
    ]
    if len(bodies) > 1:
        yield ConstraintViolation(
            "json, text and file exclude each other: a response has one body", (bodies[1], *bodies)
        )
    if bodies and respond.status in _WITHOUT_CONTENT:
        yield ConstraintViolation(
            f"a response with status {respond.status} has no body; remove {bodies[0]}", ("status", bodies[0])
        )
    if "content-type" in respond.headers and not bodies:
        yield ConstraintViolation("content-type describes a body; write json, text or file too", ("headers",))
    for name, value in respond.headers.items():
        if not (value.isascii() and value.isprintable()):
            yield ConstraintViolation(f'"{name}" may hold only printable ASCII characters', ("headers",))
        if name == "content-encoding":
            yield ConstraintViolation(
                '"content-encoding" would be wrong: the body is sent as it is; remove it', ("headers",)
            )


class Respond(Section):
    """A response that the configuration holds as a whole. It is the same for every request: nothing in it is an
    expression or a template."""

    status: RespondStatus = 200
    """The status, without 206 and 304."""
    json_: Annotated[JsonValue, Field(alias="json")] = None
    """The body as JSON. At most one of json, text and file is given; without one the body is empty."""
    text: str | None = None
    """The body as text, in UTF-8."""
    file: str | None = None
    """The file with the body, relative to the configuration file, of at most 1 MiB. It is read at start and at each
    reload. Its ending gives the Content-Type."""
    headers: Headers = Field(default_factory=dict)
    """Header fields. A content-type here replaces the usual one."""
    delay: Delay = 0.0
    """The time before the response, as of a slow upstream."""

    _checked = model_validator(mode="after")(enforce(_respond_constraints))


class Redirect(Section):
    """A redirect to another path of the same origin, or to a URL whose origin the configuration holds."""

    to: RedirectTarget
    """The target: a path, or an http:// or https:// URL, as an RFC 6570 template with the forms {name}, {?a,b} and
    {&a,b}. Names are parameters of the path and the query, or path.…, query.… and headers.…. A value stays one encoded
    segment or query value, so that it cannot change the origin. {+name} keeps the slashes of a parameter <path:name>;
    an empty segment or a dot segment in it is refused. {?name} of a list gives one parameter with commas between the
    items."""
    status: Literal[301, 302, 303, 307, 308] = 308
    """The status. 308 and 307 keep the method and the body, 303 makes it a GET."""
    query: Literal["drop", "keep"] = "drop"
    """What becomes of the client's query. keep: it is added to the target unchanged, behind what the target has itself.
    drop: only what {?a,b} and {&a,b} name is sent."""
