"""Messages about invalid expressions: one sentence says what is wrong, and how to write a constant if it was meant.

The messages quote texts of the configuration. Code that prints them must hide the values of environment variables.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jmespath.exceptions

from .functions import FUNCTIONS, argument_types

Node = Mapping[str, Any]

TABLES = frozenset({"with", "params", "json", "form"})
"""The keys whose tables hold expressions or constants (``{ value = … }``)."""

_SHOWN_MAX = 60
# Words, numbers and dates: texts without the operators of JMESPath.
_PLAIN_TEXT = re.compile(r"[\w+%-][\w %+./:-]*")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_JSON_LIST = re.compile(rf"\[\s*(?:{_JSON_NUMBER.pattern}\s*(?:,\s*{_JSON_NUMBER.pattern}\s*)*)?\]", re.ASCII)
"""A list of numbers. A list of texts is not matched: in a file its quotes would have to be escaped."""
_JSON_WORDS = frozenset({"true", "false", "null"})


def parse_mistake(text: str, error: Exception, where: tuple[str | int, ...]) -> str:
    """The reason why ``text`` at the key ``where`` is no expression, as one message.

    If a constant may have been meant, the message also says how to write it.
    """
    if _JSON_NUMBER.fullmatch(text):
        reason = "it is a number"
    elif _JSON_LIST.fullmatch(text):
        reason = "it is a list of numbers"
    elif not text.strip():
        reason = "it is empty"
    elif isinstance(error, jmespath.exceptions.ParseError):
        reason = _parse_reason(text, error)
    else:
        reason = "it is nested too deeply, or holds a number that is too long"
    meant = _instead(text, where) if _may_mean_itself(text) else ""
    return f"not a JMESPath expression: {reason}{meant}"


def constant_hints(tree: Node, where: tuple[str | int, ...]) -> Mapping[str, str]:
    """Hints for names that may have been meant as constants: by name, the end of the message about an unknown name.

    In JMESPath a text in double quotes is a name. A name may be meant as a constant if it is the whole entry of a
    table, an operand of a comparison or an argument of a function; ``true``, ``false`` and ``null`` may be anywhere.
    """
    if tree["type"] == "field":
        in_table = len(where) > 1 and where[-2] in TABLES
        text = tree["value"]
        return {text: _instead(text, where)} if in_table or text in _JSON_WORDS else {}
    return {
        child["value"]: _instead(child["value"], ())
        for node in _nodes(tree)
        for child in node["children"]
        if isinstance(child, dict) and child["type"] == "field"
        if child["value"] in _JSON_WORDS or node["type"] in ("comparator", "function_expression")
    }


def check_syntax_tree(node: Node) -> None:
    """Check that every part of a syntax tree can give a value.

    Raises:
        ValueError: a function is unknown or has a wrong number of arguments, the step of a slice is 0, a member of a
            negation is read (``!a.b``), or an expression reference (``&price``) stands in the place of a value, or the
            reverse. The message is one sentence.
    """
    if node["type"] == "expref":
        raise ValueError("& makes an expression for sort_by, max_by, min_by or map; write the expression without it")
    for function in _nodes(node):
        if function["type"] == "slice" and function["children"][2] == 0:
            raise ValueError("the step of a slice cannot be 0; leave it out, or write 1 or -1")
        name, children = function.get("value"), function["children"]
        if function["type"] == "subexpression" and children[0]["type"] == "not_expression":
            raise ValueError("!a.b means (!a).b in JMESPath, which is always null; write !(a.b)")
        if function["type"] == "function_expression":
            _check_function(str(name), len(children))
        for place, child in enumerate(children):
            if isinstance(child, dict):
                _check_reference(function, place, child)


def _check_reference(parent: Node, place: int, child: Node) -> None:
    function = parent["value"] if parent["type"] == "function_expression" else ""
    takes = bool(function) and "expref" in argument_types(function, place)
    if child["type"] == "expref" and not takes:
        needs = f"{function}() takes a value there" if function else "a value must stand here"
        raise ValueError(f"& makes an expression for sort_by, max_by, min_by or map, and {needs}; leave the & out")
    if takes and child["type"] != "expref":
        order = "first" if place == 0 else "second"
        raise ValueError(f"the {order} argument of {function}() is an expression: write & before it, such as &price")


def _check_function(name: str, given: int) -> None:
    known = FUNCTIONS.FUNCTION_TABLE.get(name)
    if known is None:
        near = difflib.get_close_matches(name, FUNCTIONS.FUNCTION_TABLE, n=1)
        hint = f"; did you mean {near[0]}()?" if near else ""
        raise ValueError(f"JMESPath has no function {name}(){hint}")
    signature = known["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not variadic):
        least = "at least " if variadic else ""
        raise ValueError(f"{name}() takes {least}{len(signature)} argument{'s'[: len(signature) != 1]}, not {given}")


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _nodes(child)


def _parse_reason(text: str, error: jmespath.exceptions.ParseError) -> str:
    place = min(error.lex_position or 0, len(text))
    token = str(error.token_value)
    if isinstance(error, jmespath.exceptions.IncompleteExpressionError):
        return "a name, a value or a closing bracket is missing at its end"
    at = f"at character {place + 1}"
    if isinstance(error, jmespath.exceptions.LexerError):
        if str(error.message).startswith("Unclosed"):
            return f"the {token[:1]} {at} is not closed; write another {token[:1]} at its end"
        if token == "=":
            return f"= {at} is no operator; write == to compare"
        return f'"{token[:1]}" {at} is not allowed; write a name with such a character in double quotes'
    if error.token_type == "NUMBER":
        return f"the number {at} must stand between backticks: `{token}`"
    return f'"{_cut(token)}" {at} is not expected; an operator, a comma or a bracket is missing, or one is too many'


def _may_mean_itself(text: str) -> bool:
    """Whether a text in the place of an expression may have been meant as a constant."""
    if not text.strip() or text.startswith(("http://", "https://")) or _JSON_LIST.fullmatch(text):
        return True
    return ".." not in text and _PLAIN_TEXT.fullmatch(text) is not None


def _instead(text: str, where: tuple[str | int, ...]) -> str:
    """The end of a message that says how to write ``text`` as a constant; empty for a long text."""
    what = text if text in _JSON_WORDS else "the text itself"
    if _JSON_NUMBER.fullmatch(text) or _JSON_LIST.fullmatch(text):
        what = "the number" if text[0] != "[" else "the list"
    is_json = what != "the text itself"
    literal = f'"`{text}`" (a JMESPath literal)' if is_json else f"\"'{text}'\""
    ways = [literal] if is_json or not set(text) & {"'", "\\"} else []
    if len(where) > 1 and where[-2] in TABLES and text != "null":
        ways.append(f"{where[-1]} = {{ value = {text if is_json else json.dumps(text, ensure_ascii=False)} }}")
    return f"; for {what} write {' or '.join(ways)}" if ways and len(text) <= _SHOWN_MAX else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
