"""The refusals in the source: each place that makes an error response, with the texts that its detail may have.

A place is a call of ``ErrorResponse`` or ``RequestError``, or of a function that passes one of its parameters on as the
detail of such a call.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import umbel

SOURCE = Path(umbel.__file__).parent
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def refusals_in(package: str, made_by: str) -> dict[str, str]:
    """Return the patterns of all details in a package, each with the places that have it.

    ``made_by`` is the class that the places call with a status and a detail.
    """
    paths = sorted((SOURCE / package).rglob("*.py"))
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    constants: dict[str, ast.expr] = {}
    for module in modules.values():
        constants |= _constants(module)
    found: dict[str, str] = {}
    makers = {made_by: 1}
    while makers:
        passing: dict[str, int] = {}
        for path, module in modules.items():
            for function, call in _calls(module, makers):
                detail = call.args[makers[_name(call)]]
                parameters = [] if function is None else [argument.arg for argument in function.args.args]
                if function is not None and isinstance(detail, ast.Name) and detail.id in parameters:
                    passing[function.name] = parameters.index(detail.id)
                    continue
                place = f"{path.relative_to(SOURCE)}:{call.lineno}"
                for text in _texts(detail, function, constants):
                    found[text] = f"{found[text]}, {place}" if text in found else place
        makers = passing
    return found


def _calls(module: ast.Module, makers: Mapping[str, int]) -> Iterator[tuple[_Function | None, ast.Call]]:
    """Yield the calls of functions, by their names, each with the function around it."""
    owners: dict[ast.AST, _Function] = {}
    for function in ast.walk(module):
        if isinstance(function, _Function):
            owners.update(dict.fromkeys(ast.walk(function), function))
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _name(node) in makers and len(node.args) > makers[_name(node)]:
            yield owners.get(node), node


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _constants(module: ast.Module) -> dict[str, ast.expr]:
    return {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _texts(node: ast.expr, function: _Function | None, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """Yield the patterns of the texts that an expression may give."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in node.values)
    elif isinstance(node, ast.Name):
        assigned = [
            each.value
            for each in (ast.walk(function) if function is not None else ())
            if isinstance(each, ast.Assign) and any(isinstance(t, ast.Name) and t.id == node.id for t in each.targets)
        ]
        values = assigned or ([constants[node.id]] if node.id in constants else [])
        for value in values:
            yield from _texts(value, function, constants)
        if not values:
            yield f"<{node.id}>"
    else:
        yield f"<{ast.unparse(node)}>"
