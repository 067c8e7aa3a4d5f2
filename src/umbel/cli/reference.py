"""Reference of the configuration in Markdown (docs/config.md): a written introduction, and one table per section.

The tables are made from the schema.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from ..config.schema.reference.default_reasons import REASONS
from ..config.schema.reference.jsonschema import json_schema
from ..config.schema.section import Section
from ..config.schema.section_tree import all_sections

_INTRODUCTION = """\
# Configuration: every section and key

<!-- Made by `umbel schema --markdown`; edit the schema or cli/reference.py, then make it again. -->

This page is the reference of `umbel.toml`, the configuration file of Umbel. A small one:

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

Umbel reads one TOML file: the one that `-c FILE` or `UMBEL_CONFIG` names, else `umbel.toml`. These commands help to
write it:

- `umbel check` reports all mistakes, each as `file:line: key: reason`, and exits with 0 or 78. It also prints warnings
  about keys that are valid and probably do not do what was meant, such as two bounds that contradict each other (also
  bounds in `hypercorn.toml`). A warning does not change the exit status.
- `umbel explain GET /some/path` shows the route that answers, and the limits in force.
- `umbel schema` prints a JSON Schema for editors. Save it as `umbel.schema.json`, and begin the file with
  `#:schema ./umbel.schema.json`.

A configuration is refused if it has no route, or if a reload would lose more than half of its routes: the file may be
truncated. `--allow-empty` or `UMBEL_ALLOW_EMPTY=1` accepts it. An application in Python has routes of its own and may
start without configured ones. A file must be a regular file of at most 16MiB; a named pipe, a device or a socket is
refused without waiting for it. A file that was changed within the last second is read again until it stays unchanged,
so a half-written file is not used.

## How values are written

**Units.** A duration is a number and a unit, in quotes: `"250ms"`, `"1.5s"`. Its units are `us`, `ms`, `s`, `m`, `h`
and `d`. A size has the unit `B`, `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB` (powers of 1024). A rate is a
size per second: `"240B/s"`. A ratio is a number and a percent sign: `"20%"`. A number without a unit is a mistake.

**Variables.** `${NAME}` in a text is replaced by the value of the environment variable; if the variable is not set,
this is a mistake. `${NAME:-default}` gives the default if the variable is unset or empty; a default cannot contain `}`.
`${file:/run/secrets/key}` is replaced by the content of a file of at most 64KiB, without the line end at its end; the
file is read again at each reload. `$${` gives the two characters `${`. Keys are not replaced. A value that is one
variable and nothing else takes the type of its key, if that is no text: `"${N}"` may stand for a number, `true` or
`false`, or for a list with commas between its items. Where a text is among the types of a key, as in `default`, the
value is a text. Messages show the name of a variable or file instead of its value, also instead of an item of a list;
only values and items of fewer than 4 characters are shown, since they may be words of the message.

**Files.** `include = ["routes/*.toml"]` adds the upstreams, routes, credentials (`[auth.NAME]`) and limits
(`[limits.NAME]`) of further files, which may include others. Globs and all other paths are relative to the file that
contains them. `**` matches any depth. A glob without a match is a mistake. Each file is read once. Routes keep the
order of reading: those of a file come before those of its included files, which are sorted by name. `[compress]`,
`[server]`, `[supervisor]`, `[admin]`, `[logs]` and `[defaults.*]` are allowed only in the main file. An upstream may
be defined only once, and so may a section `[auth.NAME]`.

**Defaults.** `[defaults.upstream]` and `[defaults.route]` hold default values for any key of all upstreams and routes.
Tables are merged key by key, and the upstream's or route's own key has precedence. A list is replaced as a whole.

```toml
include = ["routes/*.toml"]

[defaults.upstream]
timeout = "500ms"
headers = { authorization = "Bearer ${API_KEY}" }

[defaults.route]
deadline = "${DEADLINE:-800ms}"
```

## Templates and expressions

Templates are used in `path` and `headers`. JMESPath expressions are used in `shape`, `each`, `when`, `with`, `params`,
`json`, `form`, `split_key` and `allow`, and in `key` and `cost` of `[limits.NAME]`. Both read the same context:

| name | value |
|---|---|
| `path` | the parameters of the route's path |
| `query` | the declared query parameters, with their types |
| `headers` | the header fields of the request, in snake case: `headers.x_tenant` |
| `cookies` | the cookies of the request: `cookies.session`, `cookies."__Host-id"`; the answer is then `private` |
| `body` | the decoded body of the request |
| `client` | `client.ip`: the address of the client; null if it is unknown; the answer is then `private` |
| `auth` | in a route with `auth`, who makes the request: `kind`, `name` (of the section), `sub`, `scopes`, `claims` |
| `item` | the current item, in a call with `each` |
| the name of a call | the value of that call. A call that names another call starts when the other call has its value |

`form` and `failures` are reserved for later: neither a call nor an entry of `with` may have one of these names.

In the tables of `with`, `params`, `json` and `form`, a constant may replace an expression:
`params = { page = { value = 1 } }`.

A **template** is an RFC 6570 template with the forms `{name}`, `{?a,b}` and `{&a,b}`. A name without a dot means a
parameter of the path, a declared query parameter, or a name in the call's `with`. In a path, a value that is null,
empty, `.`, `..`, a list or an object makes the call fail with kind `bad-request`. In a query, a null is left out. A
header field with a null in its value is left out. The head of a stream is sent before the calls have ended, so it has
only those header fields of the answer that read nothing but the request.

**Values in header fields** cannot leave their place in the template. They are encoded as the field requires:

| template | encoding of a value |
|---|---|
| `x-user = "{user.name}"` | none; sent in UTF-8 |
| `x-a = "name=\\"{x}\\""` | quotes and backslashes are escaped |
| `x-a = "name={x}; b=1"` | a quoted string, if the value has one of `;,"\\` or ends with whitespace |
| `content-disposition = "attachment; filename={x}"` | the same; a value that is not ASCII is sent twice, see below |
| `link = "</a>; title={x}"` | the same |
| `content-disposition = "attachment; filename*=UTF-8''{x}"` | percent-encoded |
| `location = "/files/{x}"`, `link = "<{x}>"` | percent-encoded, except for characters that a URI may hold |
| `content-location`, `referer` | the same |
| `cookie = "a={x}; b=1"` | none; with a semicolon in the value, the field is left out |

The file name `résumé.pdf` is sent as `filename="resume.pdf"; filename*=UTF-8''r%C3%A9sum%C3%A9.pdf` (RFC 6266 and
8187). Clients without support for the second form use the first.

A header field is left out if it cannot hold its value: a control character other than the tab (so CR, LF and NUL are
never sent), a list or an object, more than 8 KiB of one value, more than 16 KiB in all, or a dot segment in the path of
a URI (Location, Refresh, Link) that the template begins. A record `header.left-out` at level info says so. This also
holds for header fields of calls made in code and for `forward_headers`.

Receivers remove whitespace around the value of a field (RFC 9110 section 5.5), which would make one user of two. So a
field with a value of `auth` that begins or ends with whitespace is left out too, unless the value is quoted or
percent-encoded, and so is such a field of a call made in code. Other values are sent without that whitespace.

A client's field is read as UTF-8 if it is valid UTF-8, else as ISO-8859-1; `forward_headers` sends its bytes unchanged,
and so does a template with its value, unless that is percent-encoded. A field that mixes it with other values has those
in UTF-8.

An **expression** is [JMESPath](https://jmespath.org/specification.html) with two more functions: `zip(a, b)` pairs the
items of two lists, and `lookup(map, key)` takes a computed key. `to_number` accepts only JSON numbers and gives null
for any other text. `contains` with a text and a value that is no text gives false.

**A function with a null argument, or one of a wrong type, gives null.** So do access to a field of such a value, and an
order (`<`, `>`) between a text and a number. One missing part or one unexpected value does not affect the rest of the
answer. (In standard JMESPath a null argument is an error.) With null, `each` has no items, `when` is false, an entry of
`params` or `form` is left out, and `json` and `shape` contain null. `umbel check` warns of functions whose argument may
be null because a call, or an item of an `each`, may fail. Write a `default` (for items an `item_default`), or handle
the null in the expression: `` merge(a, not_null(b, `{}`)) ``, `` length(b) || `0` `` or `sum(items[*])`.

**Bounds of an expression.** An evaluation that exceeds one of these is an error: 200,000
[steps](server.md#work-that-grows-faster-than-what-arrives) (some 39,000 items of `items[*].{id: id, name: name}`),
1 MiB of a text that `join` makes, and the range of JSON numbers for `sum` and `avg`.

**A value that cannot be used** in a path, a query or a form, or that makes an expression exceed a bound, makes the call
fail with kind `bad-request`; in `shape` it makes the answer fail. If the value is the client's, the answer is 400, its
detail names the parameter, and records are at level info. If the value is of another call, the answer is 502. An
expression that fails on constants alone is a mistake in the configuration: kind `internal`, 500. For an expression that
reads both, the smallest failing part decides; if it takes too many steps, the value that holds the most values decides.

## What calls send

**Header fields of a call.** A field in `headers` or `forward_headers` is sent, whatever its name, and is a part of the
[coalescing key](upstream.md#coalesce). Two kinds of fields are a mistake: those that Umbel writes (`x-request-id`,
`via`, `traceparent`, `tracestate`, `accept-encoding`, the upstream's `deadline_header`, and unless `forwarded = false`
`x-forwarded-for`, `-proto` and `-host`), and those that belong to one connection (`expect`, `proxy-*`, `connection` and
the like).

**Forwarding.** `forward_headers`, `forward_query` and `forward_cookies` name the parts of the client's request that a
call sends on unchanged. `"*"` means all. In `forward_headers`, `"*"` leaves out the fields that would reveal too much
or that are about the client's own exchange: `authorization`, `cookie`, `host`, `accept-encoding`, `content-*`,
`forwarded`, `x-forwarded-*`, `x-real-ip`, `remote-addr`, `proxy`, `expect`, conditions (`if-*`), `range`, hop-by-hop
fields, and the fields that Umbel writes. Those of them that a call may forward may be written beside it, as in
`["*", "authorization"]`. The query is sent on byte for byte after the parameters of the configuration, so a client can
repeat such a parameter; `umbel check` warns of it. A field that the configuration sets replaces one that is forwarded
by `"*"`, also where its template gives no value and so no field is sent; a field of the call itself replaces one that
is forwarded by name too. With `"*"` the answer may depend on any field, so it is `private` unless the route sets
`cache_control`, and its `Vary` names only the fields that templates and expressions read. A `*` within a name, or in
any other key, is a mistake. Cookies in `headers` are sent before those of `forward_cookies`, and replace the client's
cookies of the same name. A field that the client's `Connection` names is never forwarded, and neither is any other
hop-by-hop field.

**Conditions.** `if-none-match`, `if-modified-since`, `if-match`, `if-unmodified-since`, `range` and `if-range` can be
forwarded if the answer is one response: the route has one call, without `each`, `answer.shape` and `stream`. In any
other route, forwarding them or reading them in a header template is a mistake: a 304 of one of several calls would
leave a part of the answer empty. Umbel makes an ETag of such an answer (`answer.etag`) and compares it itself. If
conditions are forwarded, the answer has the `ETag` and `Last-Modified` of the response, as far as their conditions are
forwarded, and its `Expires` and `Content-Location`; if the response has no ETag, Umbel makes one. A 304 to a request
with conditions becomes the answer, and so do 412, 428 and, with `range`, 206 and 416. A range of bytes is not
forwarded, since the bytes of the answer differ from those of the response; a range in another unit (`items=0-9`) is. A
date is not forwarded beside an entity tag that is not forwarded.

**Proxy routes** send on the client's whole request instead; [edge.md](edge.md#passing-a-path-on) has the
exceptions and the rules for paths and responses.

## What answers take over

**Statuses.** A failed required call decides the answer. If its status is in `pass_status`, the answer has this status
and the header fields that belong to it: `WWW-Authenticate` and `DPoP-Nonce` (401; also 400 and 403), `Allow` (405),
`Location` (3xx), `Retry-After` (3xx, 413, 429, 503), `Content-Range` and `Accept-Ranges` (416), `Accept`,
`Accept-Encoding`, `Accept-Post` and `Accept-Patch` (415), `Link` (451), `RateLimit*`, `X-RateLimit-*` and
`X-Rate-Limit-*` (429). They are unchanged, and at most 32 fields of 16 KiB in all. Any other status gives 502 without
such fields. A `Location` is not rewritten: a relative one is relative to the client's URL, and an absolute one may name
a host that the client cannot reach. So 3xx are passed on only if `pass_status` names them, or with
`redirects = "pass"`; as in every answer of a failed call the body is then a problem document. A redirect (301, 302,
303, 307, 308) without a `Location` gives 502, and so does a 405 without `Allow`. `answer.forward_headers` also holds
for the answer of a passed status, and `answer.forward_cookies` for every answer: a 401 that ends a session can delete
its cookie. An answer with `status = 201` has the `Location` of the first call with a 201 response.

A 401 is passed on by default if the call carries a credential of the client; else the 401 is about the gateway's own
credential, and gives 502. A call carries a credential of the client in these cases: it forwards cookies; it sends a
header field, a query parameter or a value whose name is that of a credential (`authorization`, `x-api-key`,
`access_token`, `body.password`, …), or `"*"`; or it sends the client's body as a whole, as to a login, and no header
field of the configuration is a credential.

**The body** of a failed answer is a problem document (RFC 9457), or with `pass_body` the error body of the response.
The member `calls` of the document has an entry for each failed call: `name`, `kind`, `status` (the status that the
failure would give an answer), `received_status` (the status of the response; absent without a response) and
`elapsed_ms`. The lines of a stream have `received_status` too.

## Sections
"""


def reference() -> str:
    """Return the whole document, which ends with a line end."""
    return _INTRODUCTION + "".join(_sections())


def _sections() -> Iterator[str]:
    schema = json_schema(variables=False)
    headers: dict[type[Section], list[str]] = {}
    for place in all_sections():
        variant = f" with `{place.variant}`" if place.variant else ""
        headers.setdefault(place.model, []).append(f"`{place.header}`{variant}" if place.header else "")
    for model, names in headers.items():
        top = names == [""]
        title = "The top of the file" if top else ", ".join(names)
        about = "" if top else f"{_text(inspect.getdoc(model) or '')}\n\n"
        table = schema if top else schema["$defs"][model.__name__]
        for value in table["properties"].values():
            if name := value.get("$ref", "").rpartition("/")[
                2
            ]:  # A key that holds a section has the description of the section.
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
    if "oneOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["oneOf"])))
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
    """Return a docstring as a cell of a table: in one line, with the characters of Markdown escaped."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
