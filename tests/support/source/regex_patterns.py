"""All regular expressions of ``src/umbel``, found in its syntax trees."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import umbel
from umbel.core.diagnostics.redact import Redactor
from umbel.server.http1.host import Hosts
from umbel.server.http1.request_head import HeadReader
from umbel.server.limits.server_limits import Limits

ROOT = Path(umbel.__file__).parent

_CALLS = frozenset({"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"})
_COMPILES_BYTES = "bytes_pattern"
"""The function of ``core/http/syntax.py`` that compiles a pattern for bytes from a text."""
METHODS = ("search", "fullmatch", "sub")
"""The methods that are tested of each pattern, whichever the source calls: a match anywhere, of all, and repeated."""


class Found(NamedTuple):
    """A call of the module ``re``."""

    place: str
    """File and line."""
    owner: str
    """File and function, such as ``core/diagnostics/redact.py:Redactor.__init__``; at module level only the file."""
    pattern: re.Pattern[Any] | None
    """The pattern; None if it depends on local variables of the function."""


def find_patterns() -> list[Found]:
    """Return every call of ``re`` and of ``bytes_pattern`` in ``src/umbel``, in the order of files."""
    found: list[Found] = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if (names := _names_of_re(tree)) is not None:
            relative = path.relative_to(ROOT).as_posix()
            for call, function in _calls(tree, ()):
                if _calls_re(call.func, names) and function != (_COMPILES_BYTES,):
                    owner = f"{relative}:{'.'.join(function)}" if function else relative
                    found.append(Found(f"{relative}:{call.lineno}", owner, _folded(call, path)))
    return found


def _names_of_re(tree: ast.Module) -> tuple[set[str], dict[str, str]] | None:
    """Return the names of the module ``re`` and of its functions in a module; None if it uses neither."""
    modules: set[str] = set()
    functions: dict[str, str] = {}
    if any(isinstance(node, ast.FunctionDef) and node.name == _COMPILES_BYTES for node in tree.body):
        functions[_COMPILES_BYTES] = "compile"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "re"}
        elif isinstance(node, ast.ImportFrom) and node.module == "re":
            functions |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and any(alias.name == _COMPILES_BYTES for alias in node.names):
            functions[_COMPILES_BYTES] = "compile"
    return (modules, functions) if modules or functions else None


def _calls_re(function: ast.expr, names: tuple[set[str], dict[str, str]]) -> bool:
    modules, functions = names
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.value.id in modules and function.attr in _CALLS
    return isinstance(function, ast.Name) and functions.get(function.id) in _CALLS


def _calls(node: ast.AST, function: tuple[str, ...]) -> Iterator[tuple[ast.Call, tuple[str, ...]]]:
    """Yield the calls within a node, each with the names of the functions and classes around it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        function = (*function, node.name)
    elif isinstance(node, ast.Call):
        yield node, function
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, function)


def _folded(call: ast.Call, path: Path) -> re.Pattern[Any] | None:
    """Compile the pattern of a call from the module's global names; return None if it uses other names."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    flags = next((keyword.value for keyword in call.keywords if keyword.arg == "flags"), None)
    if flags is None and isinstance(call.func, ast.Attribute) and call.func.attr == "compile" and len(call.args) > 1:
        flags = call.args[1]
    try:
        pattern = _value(call.args[0], module.__dict__)
        if isinstance(call.func, ast.Name) and call.func.id == _COMPILES_BYTES:
            pattern = pattern.encode("ascii")
        return re.compile(pattern, 0 if flags is None else _value(flags, module.__dict__))
    except (NameError, AttributeError):
        return None


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<pattern>", "eval"), dict(names))


def method_of(pattern: re.Pattern[Any], method: str) -> Callable[[Any], object]:
    """Return one of ``METHODS`` as a function of the text."""
    if method == "sub":
        nothing = b"" if isinstance(pattern.pattern, bytes) else ""
        return lambda text: pattern.sub(nothing, text)
    function: Callable[[Any], object] = getattr(pattern, method)
    return function


REDACTED_NAMES: Sequence[Sequence[str]] = (
    (),
    ("*x*y*", "a*b*c*d*e", "*.id", "client.id", "x-*-*"),
    ("*", "my name", "pin#*", " ", "\\", "a\\*b c", "=", '"'),
)


def _redactors() -> list[re.Pattern[Any]]:
    return [Redactor(names)._candidate for names in REDACTED_NAMES]


def _heads() -> list[re.Pattern[Any]]:
    return [HeadReader(Limits(underscore_headers=kept), Hosts(()))._pattern for kept in ("keep", "drop")]


MADE_AT_RUN_TIME: dict[str, Callable[[], list[re.Pattern[Any]]]] = {
    "core/diagnostics/redact.py:Redactor.__init__": _redactors,
    "server/http1/request_head.py:_head_pattern": _heads,
}
"""The functions that make patterns at run time, and the patterns that they make for several configurations."""
