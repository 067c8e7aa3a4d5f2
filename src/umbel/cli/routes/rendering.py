"""The rendering of an explained route: as a tree for the terminal, and as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .explanation import CallExplained, Limit, RouteExplained

WIDTH = 110
"""The width in columns at which lines of limits are wrapped."""


def tree(route: RouteExplained, method: str = "GET") -> str:
    """Return the route with its calls as a tree, each call below its deepest dependency.

    ``method`` is the method of the request.
    """
    return "\n".join(_lines(route, method))


def mermaid(route: RouteExplained) -> str:
    """Return the route as a Mermaid flowchart: arrows are dependencies, dotted from an optional call to the answer."""
    ids = {call.name: f"c{number}" for number, call in enumerate(route.calls)}
    lines = ["flowchart LR", f'  request(["{_escaped("|".join(route.methods) + " " + route.path)}"])']
    for call in route.calls:
        words = [call.name, _request(call), _weight(call)]
        lines.append(f'  {ids[call.name]}["{"<br/>".join(map(_escaped, words))}"]')
    made = f"passed on to {route.proxy.upstream}" if route.proxy is not None else route.static or route.combine
    lines.append(f'  answer(["{_escaped("answer: " + made)}"])')
    if not route.calls:
        lines.append("  request --> answer")
    for call in route.calls:
        sources = [ids[name] for name in call.needs] or ["request"]
        lines += [f"  {source} --> {ids[call.name]}" for source in sources]
    answering = (call for call in route.calls if call.name in route.answers)
    lines += [f"  {ids[call.name]} {'-->' if call.required else '-.->'} answer" for call in answering]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Escape the characters that Mermaid interprets within quotes."""
    return "".join(f"#{ord(char)};" if char in '#"<>&`' else char for char in text)


def _lines(route: RouteExplained, method: str) -> Iterator[str]:
    yield f"{'|'.join(route.methods)} {route.path}  [{route.place}]"
    if route.chosen_because:
        yield f"  because  {'; '.join(route.chosen_because)}"
    for number, line in enumerate(route.access):
        yield f"  {'' if number else 'access':<8} {line}"
    yield from _wrapped("  limits   ", " " * 11, route.limits)
    for number, param in enumerate(route.query):
        yield f"  {'query' if number == 0 else '':<8} {param}"
    if route.calls:
        yield f"  combine  {route.combine}{_counted(route)}"
    for rule in (route.static, f"location {route.location}" if route.location else "", *route.rules):
        if rule:
            yield f"  answer   {rule}"
    for number, line in enumerate(route.proxy.lines(method) if route.proxy is not None else ()):
        yield f"  {'' if number else 'proxy':<8} {line}"
    for name, limits in route.upstreams.items():
        yield from _wrapped(f"  {name}: ", "     ", limits)
    yield ""
    if route.calls:
        yield "at once"
        beneath = _beneath(route.calls)
        yield from _branches(beneath.get("", []), beneath, "")
        yield ""
    elif route.proxy is None:
        yield "no calls"
        yield ""
    yield "Limits without a place are defaults."


def _request(call: CallExplained) -> str:
    """The request of a call; for a call with a configured response also that response."""
    request = " ".join(filter(None, (call.upstream, call.path)))
    if not call.response:
        return f"{call.method} {request}"
    return f"{f'{call.method} {request}, not sent: ' if request else ''}responds {call.response}"


def _weight(call: CallExplained) -> str:
    return "required" if call.required else "optional"


def _counted(route: RouteExplained) -> str:
    return "" if route.combine == "all" else f" of {', '.join(route.answers)}"


def _beneath(calls: Sequence[CallExplained]) -> dict[str, list[CallExplained]]:
    """Return the children of each call: the calls whose deepest dependency, most likely their last, it is."""
    by_name = {call.name: call for call in calls}
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max(map(depth, by_name[name].needs), default=0)
        return depths[name]

    beneath: dict[str, list[CallExplained]] = {}
    for call in calls:
        beneath.setdefault(max(reversed(call.needs), key=depth, default=""), []).append(call)
    return beneath


def _branches(calls: Sequence[CallExplained], beneath: dict[str, list[CallExplained]], indent: str) -> Iterator[str]:
    for call in calls:
        last = call is calls[-1]
        inner = indent + ("   " if last else "│  ")
        children = beneath.get(call.name, [])
        yield f"{indent}{'└─' if last else '├─'} {call.name}: {_request(call)}  [{call.place}]"
        stem = inner + ("│  " if children else "   ")
        if len(call.needs) > 1:
            yield f"{stem}waits for {' and '.join(call.needs)}"
        yield f"{stem}{_weight(call)}{''.join(f' · {rule}' for rule in call.rules)}"
        yield from _wrapped(stem, stem, call.limits)
        if call.upstream_limits:
            yield from _wrapped(f"{stem}{call.upstream}: ", f"{stem}   ", call.upstream_limits)
        if children:
            yield f"{inner}│ then"
            yield from _branches(children, beneath, inner)


def _wrapped(first: str, others: str, limits: Sequence[Limit]) -> Iterator[str]:
    """Yield the limits in lines of about ``WIDTH`` columns, with the prefix ``first`` and then ``others``."""
    line, empty = first, True
    for one in limits:
        word = f"{one.key} {one.value}{f' [{one.place}]' if one.place else ''}"
        if not empty and len(line) + len(word) > WIDTH:
            yield f"{line} ·"
            line, empty = others, True
        line += word if empty else f" · {word}"
        empty = False
    yield line
