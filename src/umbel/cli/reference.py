"""The reference of the configuration in Markdown (docs/config.md): an introduction, and a table for each section.

The tables are made only from the schema.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from ..config.schema.default_reasons import REASONS
from ..config.schema.jsonschema import json_schema
from ..config.schema.section import Section
from ..config.schema.section_tree import all_sections

_INTRODUCTION = """\
# Configuration: every section and key

<!-- Made by `umbel schema --markdown`; edit the schema or cli/reference.py, then make it again. -->

Umbel reads one TOML file, `umbel.toml` unless `-c FILE` or `UMBEL_CONFIG` says otherwise. `umbel check` reports every
mistake at once, each as `file:line: key: reason`, and exits with 0 or 78. What can be served and yet does probably not
do what was meant, such as two bounds that contradict each other (those of the `hypercorn.toml` beside the file too),
stands behind `warning:` and changes no status. `umbel explain GET /some/path` shows which
route answers and which limits are in force. `umbel schema` prints a JSON Schema for editors: save it as
`umbel.schema.json` and begin the file with `#:schema ./umbel.schema.json`.

A file is a regular file of at most 16MiB: a named pipe, a device or a socket in its place is refused without waiting
for it. A file that was changed within the last second is read again until it stands still, so that one that is half
written is not taken for a configuration. A configuration without routes is refused, and so is one that has lost more
than half of them when it is read again, unless `--allow-empty` (or `UMBEL_ALLOW_EMPTY=1`) says that this is meant. For
an application in Python, which has routes of its own, only what its file had and lost counts.

```toml
[upstreams.users]
urls = ["http://127.0.0.1:9001"]

[[routes]]
path = "/hello/<user_id>"
[routes.calls.user]
upstream = "users"
path = "/users/{user_id}"
[routes.answer]
shape = "{hello: user.name}"
```

## How values are written

**Units.** A duration is a number and a unit, in quotes: `"250ms"`, `"1.5s"`; the units are `us`, `ms`, `s`, `m`, `h`
and `d`. A size is the same with `B`, `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB` (powers of 1024),
and a rate is a size per second: `"240B/s"`. A ratio is a number and a percent sign: `"20%"`. A bare number is none of
them.

**Variables.** `${NAME}` in a text is replaced by the environment variable, and it is a mistake if that is not set.
`${NAME:-default}` gives the default where it is unset or empty; a default holds no `}`. `$${` stands for the two
characters `${`. Keys are never replaced, and a text stays a text: `"${N}"` cannot stand where a whole number is
needed. Messages show a variable's name, never its value.

**Files.** `include = ["routes/*.toml"]` adds the upstreams and the routes of more files, which may include others.
The globs are relative to the file that they stand in, `**` means any depth, a pattern that matches nothing is a
mistake, and each file is read once. Routes keep the order in which they are read: the file's own, then those of its
files by name. `[server]`, `[supervisor]`, `[logs]` and `[defaults.*]`
stand in the main file alone. An upstream may be defined once.
Other paths too are relative to the file that they stand in.

**Defaults.** `[defaults.upstream]` and `[defaults.route]` take any key of an upstream and of a route and hold for
those of all files. Tables merge key by key, the nearest wins; a list is replaced as a whole.

```toml
include = ["routes/*.toml"]

[defaults.upstream]
timeout = "500ms"
headers = { authorization = "Bearer ${API_KEY}" }

[defaults.route]
deadline = "${DEADLINE:-800ms}"
```

## What templates and expressions see

Templates (in `path` and `headers`) and JMESPath expressions (in `shape`, `each`, `when`, `with`, `params`, `json` and
`form`) read one context. In the tables of the last four a constant may stand in the place of an expression:
`params = { page = { value = 1 } }`.

| name | holds |
|---|---|
| `path` | the parameters of the route's path |
| `query` | the declared query parameters, of their types |
| `headers` | the request's headers in snake case: `headers.x_tenant` |
| `body` | the request's body, decoded |
| `item` | the value at hand, in a call with `each` |
| a call's name | the value of that call; to name it is to wait for it |

A **template** is an RFC 6570 template of three forms: `{name}`, `{?a,b}` and `{&a,b}`. A bare name in it is short for a
parameter of the path, a declared query parameter, or a name bound in the call's `with`. In a path, a value that is
null, empty, `.`, `..`, a list or an object fails the call as `bad-request`; in a query, null drops out; a header with
a value that is null in it is left out as a whole. A stream's head goes out before the calls have ended, so it has the
headers of the answer that read nothing but the request.

**Values in headers** stay where the template puts them, and are encoded as the field asks:

| template | a value in it |
|---|---|
| `x-user = "{user.name}"` | stands as it is, in UTF-8 |
| `x-a = "name=\\"{x}\\""` | is escaped: a quote or a backslash does not end the quoted string |
| `x-a = "name={x}; b=1"` | becomes a quoted string where it holds a semicolon, a comma, a quote or a backslash |
| `content-disposition = "attachment; filename={x}"` | the same; what is not ASCII is sent twice, as below |
| `link = "</a>; title={x}"` | the same |
| `content-disposition = "attachment; filename*=UTF-8''{x}"` | is percent-encoded |
| `location = "/files/{x}"`, `link = "<{x}>"` | is percent-encoded, but for what may stand in a URI |
| `content-location`, `referer` | the same |
| `cookie = "a={x}; b=1"` | stands as it is; one with a semicolon leaves the field out |

A file named `résumé.pdf` is sent as `filename="resume.pdf"; filename*=UTF-8''r%C3%A9sum%C3%A9.pdf` (RFC 6266 and 8187):
the second for browsers, the first for readers that do not know it.

A value that no field can hold leaves its field out, and nothing else: one with a control character other than the tab
(CR, LF and NUL never get through, and are not replaced: a value without them would be another value), a list or an
object, more than 8 KiB of one value or 16 KiB in all. It is recorded as `header.left-out`, at level info. So it is with
the fields that a handler gives, and with those of `forward_headers`. A client's own field is read as UTF-8 where it
is that, else as ISO-8859-1; `forward_headers` sends its bytes.

An **expression** is [JMESPath](https://jmespath.org/specification.html) with two functions more: `zip(a, b)` pairs two
lists, and `lookup(map, key)` takes a computed key; `to_number` takes the numbers of JSON alone and gives null for any
other text. No text `contains` what is no text.

**A function that is given null, or a value of the wrong type, gives null**, as access to a field does, and so does the
ordering of a text and a number: one part that is missing, or one odd value, leaves the rest of the answer as it is.
(JMESPath itself makes an error of the first.) So `each` then has no items, `when` is false, an entry of `params` or
`form` is left out, and null stands in `json` and `shape`. Where a part may be null, or an item of an `each`,
`umbel check` warns of the functions that are given it: write a `default` (of an item: `item_default`), or provide for
it in the expression, as by `` merge(a, not_null(b, `{}`)) ``, `` length(b) || `0` `` or `sum(items[*])`.

**Bounds of an expression** are errors: 200,000 [steps](server.md#work-that-grows-faster-than-what-arrives) of an
evaluation (some 39,000 items of `items[*].{id: id, name: name}`), 1 MiB of a text that `join` makes, and JSON's range
for `sum` and `avg`.

**A value that does not fit** a path, a query or a form, or with which an expression reaches a bound, fails the call (in
`shape`: the answer) as `bad-request`. If it is the client's, the answer is 400, its detail names the parameter, and the
records are at level info. If it is of another call, it is 502. An expression that fails on
constants alone is a mistake in the configuration: `internal`, 500. Where an expression reads both, its smallest failing
part decides; where it takes too many steps, the value with the most values in it does.

**Header fields of a call.** A field that `headers` or `forward_headers` names is sent as it stands, whatever its name,
and is part of the [coalescing key](upstream.md#coalesce). Two sorts of names are a mistake: what Umbel writes itself
(`x-request-id`, `via`, `traceparent`, `tracestate`, `accept-encoding`, the upstream's `deadline_header`, and unless
`forwarded = false` `x-forwarded-for`, `-proto` and `-host`), and what is about one connection (`expect`, `proxy-*`,
`connection` and the like).

**Statuses.** A required call that fails decides the answer. A status in its `pass_status` becomes the answer's, with
the fields that belong to it: `WWW-Authenticate` and `DPoP-Nonce` (401; 400 and 403 too), `Allow` (405), `Location`
(3xx), `Retry-After` (3xx, 413, 429, 503), `Content-Range` and `Accept-Ranges` (416), `Accept`, `Accept-Encoding`,
`Accept-Post` and `Accept-Patch` (415), `Link` (451), `RateLimit*`, `X-RateLimit-*` and `X-Rate-Limit-*` (429). They go
as they came, at most 32 fields of 16 KiB in all. A `Location` is not rewritten: a relative one is relative to the
client's URL, and an absolute one may name a host that only the upstream's neighbours know; so 3xx are passed on only
where `pass_status` names them. `answer.forward_headers` holds for such an answer too, and `answer.forward_cookies`
for every answer: a 401 that ends a session ends it. Any other status is 502 and brings no field. An answer whose own
`status` is 201 has the `Location` of the first call whose upstream said 201.

A 401 is passed on by default where the call carries a credential of the client's, so that the client can do something
about it; else it is about the gateway's own, and 502. A call carries one if it forwards cookies, or a header, a query
parameter or a value whose name says so (`authorization`, `x-api-key`, `access_token`, `body.password`, …), or `"*"`; or
if it sends the client's body as a whole, as to a login, while no header of the configuration is a credential.

The body is a problem document (RFC 9457), or with `pass_body` the upstream's own. The document's `calls` has a member
for each call that failed: `name`, `kind`, `status` (what the failure makes of an answer), `received_status` (what the
upstream said; absent where it said nothing) and `elapsed_ms`. The lines of a stream say `received_status` too.

**Conditions.** `if-none-match`, `if-modified-since`, `if-match`, `if-unmodified-since`, `range` and `if-range` can be
forwarded where the answer is one response: a route with one call, which is no `each`, without `answer.shape` and not a
stream. Anywhere else they are a mistake, in `forward_headers` as in a template: a 304 of one of several calls would
leave nothing to compose, and the client's validator is the whole answer's, which Umbel makes (`answer.etag`) and
compares itself. Where they are forwarded, the answer's `ETag` and `Last-Modified` are the upstream's, as far as their
conditions are forwarded, with its `Expires` and `Content-Location`; Umbel's own `ETag` stands where it has none. A 304
to a request with conditions becomes the answer, and so do 412, 428 and, with `range`, 206 and 416. A range of bytes is
not sent on, since the answer's bytes are not the upstream's; one of another unit (`items=0-9`) is. A date does not go
on beside a tag that is not forwarded.

**What goes along.** `forward_headers`, `forward_query` and `forward_cookies` name what a call sends on of the client's
request as it came. `"*"` stands for all of it. In `forward_headers` it leaves out what would reveal too much or says
something of the client's own exchange: `authorization`, `cookie`, `host`, `accept-encoding`, `content-*`, `forwarded`,
`x-forwarded-*`, `x-real-ip`, `remote-addr`, `proxy`, `expect`, conditionals (`if-*`) and `range`, what belongs to the
connection, and what Umbel writes itself. Those of them that a call may forward at all can stand beside it:
`["*", "authorization"]`. A field that the configuration sets wins over one that goes along by `"*"`. The answer may
depend on any field then, so it is `private` unless the route sets `cache_control`; its `Vary` names only what the plan
names. A star elsewhere, or as a part of a name, is a mistake. Cookies that `headers` sets go before those of
`forward_cookies`, and stand in the place of the client's of the same name.
A field that the client's `Connection` names never goes along, and neither does any other hop-by-hop field.

## Sections
"""


def reference() -> str:
    """Return the whole document."""
    return _INTRODUCTION + "".join(_sections())


def _sections() -> Iterator[str]:
    schema = json_schema()
    headers: dict[type[Section], list[str]] = {}
    for place in all_sections():
        headers.setdefault(place.model, []).append(place.header)
    for model, names in headers.items():
        top = names == [""]
        title = "The top of the file" if top else ", ".join(f"`{name}`" for name in names)
        about = "" if top else f"{_text(inspect.getdoc(model) or '')}\n\n"
        table = schema if top else schema["$defs"][model.__name__]
        for value in table["properties"].values():
            if name := value.get("$ref", "").rpartition("/")[
                2
            ]:  # a section's description serves the key that holds it too
                value.setdefault("description", schema["$defs"][name]["description"])
        required = table.get("required", ())
        rows = "".join(
            _row(key, value, key in required, REASONS.get(f"{model.__name__}.{key}", ""))
            for key, value in table["properties"].items()
        )
        yield f"\n### {title}\n\n{about}| key | type | default | meaning |\n|---|---|---|---|\n{rows}"


def _row(key: str, schema: dict[str, Any], required: bool, why: str) -> str:
    meaning, _, words = _text(schema.get("description", "")).partition(" Default: ")
    default = words.removesuffix(".")
    if required:
        default = "**required**"
    elif "default" in schema and not default:
        default = f"`{_toml(schema['default'])}`"
    reason = f" *Why this default: {why}.*" if why else ""
    return f"| `{key}` | {_type(schema)} | {default} | {meaning}{reason} |\n"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        branches = schema["anyOf"]
        if "enum" in branches[0]:
            return _words(branches[0]["enum"])
        return " or ".join(dict.fromkeys(map(_type, branches)))
    if "enum" in schema:
        return _words(schema["enum"])
    if "const" in schema:
        return f"`{_toml(schema['const'])}`"
    if "$ref" in schema or "properties" in schema:
        return "table"
    if schema.get("title") in ("duration", "size", "rate", "ratio"):
        return str(schema["title"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_plural(_type(schema['items']))}"
    if kind == "object":
        inner = schema.get("additionalProperties") or next(iter(schema["patternProperties"].values()))
        return f"table of {_plural(_type(inner))}"
    if kind == "integer":
        return f"whole number{_bounds(schema)}"
    return {"string": "text", "boolean": "true or false", "number": "number"}.get(str(kind), "any value")


def _words(words: list[str]) -> str:
    return ", ".join(f'`"{word}"`' for word in words)


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else ""


def _plural(name: str) -> str:
    if name.startswith("whole number"):
        return name.replace("whole number", "whole numbers", 1)
    plurals = {"text": "texts", "table": "tables", "list of texts": "lists of texts"}
    return " or ".join(plurals.get(part, part) for part in name.split(" or "))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    return json.dumps(value)


def _text(text: str) -> str:
    """Return a docstring as one cell of a table: without line breaks, and with Markdown's characters escaped."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
