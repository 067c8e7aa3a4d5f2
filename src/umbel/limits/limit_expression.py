"""Expressions of limits: the key and the cost of a request, by JMESPath over what is known without its body."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..composition.text.expression import Expression, ExpressionError, compile_expression, is_false
from ..core.networks import parse_address
from ..net.bounded_cache import BoundedCache
from ..policy.gcra import Key

ROOTS = ("auth", "client", "path", "query", "headers", "cookies")
"""The names that the expressions of limits read."""
_STEPS_MAX = 2000
_KEY_MAX = 64
_DIGEST_SIZE = 16
_ADDRESSES_MAX, _ADDRESS_LENGTH_MAX = 4096, 64
_PREFIX_BITS = 64
_encode = json.JSONEncoder(sort_keys=True, default=str).encode
Context = Mapping[str, Any]


@lru_cache(maxsize=1024)
def compiled(text: str, where: tuple[str | int, ...]) -> Expression:
    """Compile an expression of a limit, whose evaluation blocks for at most about a millisecond.

    Raises:
        ValueError: as ``compile_expression``.
    """
    return compile_expression(text, where, _STEPS_MAX)


def reads_auth(expression: Expression) -> bool:
    """Whether an expression reads ``auth``, so that the limit can decide only after authentication."""
    return any(name.root == "auth" for name in expression.names)


def evaluator(expression: Expression) -> Callable[[Context], Any]:
    """The function that evaluates an expression; it gives null where the evaluation exceeds a bound.

    Two names with a dot, such pairs joined by ``||``, and lists of these need no interpreter, which takes some
    microseconds.
    """
    quick = _quick(expression.tree)
    return quick if quick is not None else lambda context: _evaluated(expression, context)


def _evaluated(expression: Expression, context: Context) -> Any:
    try:
        return expression.evaluate(context)
    except ExpressionError:
        return None


def _quick(tree: Mapping[str, Any]) -> Callable[[Context], Any] | None:
    children = tree["children"]
    if tree["type"] == "subexpression" and [each["type"] for each in children] == ["field", "field"]:
        root, member = (each["value"] for each in children)
        return lambda context: _member(context.get(root), member)
    if tree["type"] == "or_expression":
        first, second = map(_quick, children)
        if first is not None and second is not None:
            return lambda context: second(context) if is_false(found := first(context)) else found
    if tree["type"] == "multi_select_list":
        parts = [part for part in map(_quick, children) if part is not None]
        if len(parts) == len(children):
            return lambda context: [part(context) for part in parts]
    return None


def _member(value: Any, member: str) -> Any:
    return value.get(member) if isinstance(value, Mapping) else None


def key_of(value: Any) -> Key:
    """The key of the table for the value of a key expression: of a bounded size, whatever a client sends.

    A short ASCII text is itself; null is None. Other texts are their digest, other values their JSON or its digest.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if len(value) <= _KEY_MAX and value.isascii():
            return value
        return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).digest()
    # The json module takes whatever a claim may hold: msgspec refuses lone surrogates and integers beyond 64 bits.
    text = b"\0" + _encode(value).encode()
    return text if len(text) <= _KEY_MAX else hashlib.blake2b(text, digest_size=_DIGEST_SIZE).digest()


def cost_of(value: Any) -> float:
    """The cost for the value of a cost expression. What is no number of 0 or more costs 1: a client must not save."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return 1.0
    return float(value) if value < 1e300 else 1e300


_addresses: BoundedCache[str, str] = BoundedCache(_ADDRESSES_MAX, _ADDRESS_LENGTH_MAX)


def counted_address(client: str) -> str | None:
    """The address of a client as limits count it: of an IPv6 address the network of 64 bits, as ``2001:db8::/64``.

    One subscriber usually has a whole network. An IPv4 address that is mapped to IPv6 is the IPv4 address. None if the
    address is unknown.
    """
    if ":" not in client:
        return client or None
    known = _addresses.get(client)
    if known is None:
        address = parse_address(client)
        if address is None:
            return client
        known = str(address)
        if address.version != 4:
            packed = address.packed[: _PREFIX_BITS // 8] + bytes(16 - _PREFIX_BITS // 8)
            known = f"{type(address)(packed)}/{_PREFIX_BITS}"
        _addresses.add(client, known)
    return known
