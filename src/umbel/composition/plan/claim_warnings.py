"""Warnings about conditions ``allow`` that are true because a claim is missing.

A claim that a token lacks is null, null equals null, and null differs from any other value. So
``auth.claims.tenant == query.tenant`` admits a token without the claim if the request has no such parameter either, and
``auth.claims.role != 'guest'`` admits every token without the claim.

There is no warning if every token has the claim (``required``), if the other side of ``==`` is never null, or if the
condition tests the claim first: ``auth.claims.role && …``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...config.schema.access.auth import JwtAuth
from .null_warnings import KnownValue, Node, NullSearch

if TYPE_CHECKING:
    from ...config.schema.access.auth import Auth
    from ...config.schema.sections import Config, Route
    from .plan import Plan


def missing_claim_warnings(config: Config, plan: Plan) -> Iterator[str]:
    """Yield a sentence for each claim without which ``allow`` of a route may be true."""
    if plan.allow is None:
        return
    sections = {name: config.auth[name] for name in plan.route.auth or () if name in config.auth}
    for claim in _Comparisons(sections, plan.route).claims_of(plan.allow.tree):
        lacking = [name for name, section in sections.items() if claim not in _given(section)]
        where = " and ".join(f"[auth.{name}]" for name in lacking)
        path = "auth.sub" if claim == "sub" else f"auth.claims.{claim}"
        remedy = f'test it first, such as "{path} && …"'
        if "." not in claim and all(isinstance(sections[name], JwtAuth) for name in lacking):
            remedy = f'write "{claim}" into required of {where}, or {remedy}'
        yield f"may be true because {path} is null: credentials of {where} may lack it; {remedy}"


class _Claims(Mapping[str, KnownValue]):
    """The claims of an identity, or with ``above`` the members of one, each with the name that stands for its null."""

    def __init__(self, given: frozenset[str], above: str = "") -> None:
        self._given = given
        self._above = above

    def __getitem__(self, name: str) -> KnownValue:
        path = self._above + name
        nulls = frozenset[str]() if path in self._given else frozenset({path})
        return KnownValue(nulls, fields=_Claims(frozenset(), f"{path}."))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Comparisons(NullSearch):
    """The search for comparisons that a missing claim makes true. Of use for one condition."""

    def __init__(self, sections: Mapping[str, Auth], route: Route) -> None:
        super().__init__()
        self._route = route
        given = frozenset[str].intersection(*map(_given, sections.values())) if sections else frozenset[str]()
        claims = given if all(isinstance(section, JwtAuth) for section in sections.values()) else frozenset[str]()
        members = {"claims": KnownValue(fields=_Claims(claims)), "sub": _Claims(given)["sub"]}
        self._context = KnownValue(fields={"auth": KnownValue(fields=members)})
        self._negated = False
        self._claims: dict[str, None] = {}

    def claims_of(self, tree: Node) -> list[str]:
        """The claims, or members of claims ("a.b"), without which the condition may be true."""
        self.value_of(tree, self._context)
        return list(self._claims)

    def value_of(self, node: Node, here: KnownValue) -> KnownValue:
        kind = node["type"]
        if kind == "comparator":
            self._compare(node, here)
        negates = kind == "not_expression"
        self._negated ^= negates
        value = super().value_of(node, here)
        self._negated ^= negates
        return value

    def _compare(self, node: Node, here: KnownValue) -> None:
        left, right = node["children"]
        if any(side["type"] == "literal" and side["value"] is None for side in (left, right)):
            return  # It is the test.
        equal = node["value"] == "eq"
        # An order with null is null, which is false.
        risky = equal == self._negated if node["value"] in ("eq", "ne") else self._negated
        for one, other in ((left, right), (right, left)):
            if risky or (equal and not self._negated and self._may_be_null(other, here)):
                nulls = NullSearch().value_of(one, here).nulls - self.non_null
                self._claims.update(dict.fromkeys(sorted(nulls)))

    def _may_be_null(self, node: Node, here: KnownValue) -> bool:
        """Whether a value that stands beside a claim may be null."""
        if node["type"] in ("literal", "comparator", "not_expression", "multi_select_list", "multi_select_dict"):
            return False
        if node["type"] != "subexpression" or any(child["type"] != "field" for child in node["children"]):
            return True
        root, first, *rest = (child["value"] for child in node["children"])
        if root == "query":
            param = self._route.query_params.get(first)
            return param is None or bool(rest) or not (param.required or param.default is not None)
        if root == "auth":
            return first in ("sub", "claims") and bool(NullSearch().value_of(node, here).nulls - self.non_null)
        return root != "path" or bool(rest)


def _given(section: Auth) -> frozenset[str]:
    """The claims that each identity of a section has; those of other kinds than jwt have a subject."""
    return frozenset(section.required if isinstance(section, JwtAuth) else ("sub",))
