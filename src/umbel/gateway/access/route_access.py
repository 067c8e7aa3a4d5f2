"""Access to one route: which requests it admits, by their credentials, scopes and condition.

Theory
------
*Problem.* Every kind of route (composed, static, proxy, handler, plain view of Quart) may have ``auth``. Whether a
request is admitted must not depend on the kind, nor on whether Quart dispatches the request. So there is one object per
route, ``RouteAccess``, and one method, ``admit``, which everything that answers requests awaits before it reads the
body or starts a call.

*Steps*, each of which may refuse the request:

1. The authenticators of the route look for their credentials, in the order of the configuration. The first identity
   counts. If none is found: 401 with the challenges of all; 400 if a credential was malformed as a request; 503 if a
   credential could not be verified because the gateway has no keys. If a key may yet come from the provider, the
   request waits for one fetch and is looked at once more.
2. A credential that browsers send by themselves (a cookie) proves no intention. A request that may change something
   and a WebSocket also need an origin that the gateway trusts: its own, or one that CORS allows. Otherwise 403.
3. Scopes: 403 ``insufficient_scope``.
4. ``allow``: 403.

Afterwards ``RequestContext.identity`` is set. Tokens in the query are cut out of ``RequestContext.query`` before, on
every route, so that neither records nor upstreams get them, whatever happens.

*Waiting.* Only the fetch of keys waits. Its end is bounded by the time limit of the fetch. A client that leaves
meanwhile does not end the fetch, which others wait for too; its own request ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...auth.authenticator import Authenticator, Presented, Refusal
from ...composition.text.expression import ExpressionError, is_false
from ...config.schema.access.credential_names import credential_fields
from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...core.identity import AuthResult, Identity
from ..request.inputs import NO_COOKIES
from .query_tokens import parameter_name
from .trusted_origins import TrustedOrigins

if TYPE_CHECKING:
    from ...composition.text.expression import Expression
    from ...core.model import Inputs, Json
    from ..context import GatewayContext
    from ..request_context import RequestContext

_KINDS = {400: Kind.BAD_REQUEST, 401: Kind.UNAUTHORIZED, 403: Kind.FORBIDDEN, 503: Kind.NO_KEYS}
_RETRY_AFTER = ("retry-after", "5")
Found = tuple[Authenticator, Identity]


def _problem(status: int, result: AuthResult) -> str:
    return "insufficient-scope" if result.outcome == "insufficient-scope" else str(_KINDS[status])


class AccessError(RequestError):
    """The request is not admitted. ``result`` is what authentication has come to."""

    def __init__(self, status: int, detail: str, result: AuthResult, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(status, detail, fields=fields, problem=_problem(status, result))
        self.result = result


class Condition:
    """The condition ``allow`` of a route.

    Args:
        expression: the compiled expression.
        read: reads the inputs of a request whose body is not received.
        context: makes the evaluation context of inputs.
        lists: the query parameters that may be given more than once.
    """

    def __init__(
        self,
        expression: Expression,
        read: Callable[[RequestContext, Mapping[str, Any]], Inputs],
        context: Callable[[Inputs], Mapping[str, Json]],
        lists: Collection[str] = (),
    ) -> None:
        self._expression = expression
        self._read = read
        self._context = context
        read_names = [(root, name) for root, name in expression.names if name is not None]
        self._params = frozenset(name.encode() for root, name in read_names if root == "query" and name not in lists)
        self._cookies = frozenset(name for root, name in read_names if root == "cookies")

    def holds(self, ctx: RequestContext, path: Mapping[str, Any]) -> bool:
        """Whether a request fulfils the condition. An evaluation that exceeds a bound does not.

        Raises:
            RequestError: 400 or 412, the inputs are invalid; 400, a parameter or cookie that the condition reads is
                given more than once. The gateway and an upstream could take different ones.
        """
        if self._params or self._cookies:
            self._check_single(ctx)
        try:
            return not is_false(self._expression.evaluate(self._context(self._read(ctx, path))))
        except ExpressionError:
            return False

    def _check_single(self, ctx: RequestContext) -> None:
        params = [name for pair in ctx.query.split(b"&") if (name := parameter_name(pair)) in self._params]
        pairs = ctx.origin.fields.get("cookie", "").split(";") if self._cookies else ()
        cookies = [each for pair in pairs if (each := pair.partition("=")[0].strip(" \t")) in self._cookies]
        if len(params) > len(set(params)) or len(cookies) > len(set(cookies)):
            raise RequestError(400, "A query parameter or a cookie that decides about access is given more than once.")


class RouteAccess:
    """Access to one route; see the module. Holds no data of a request.

    Args:
        context: the gateway context.
        names: the names of the sections ``[auth.NAME]`` of which a credential is needed.
        scopes: the scopes that the credential must grant.
        scopes_any: the scopes of which it must grant at least one; empty: none.
        origins: the origins that a request with a token in a cookie may come from.
        condition: the condition ``allow``; None: there is none.
    """

    def __init__(
        self,
        context: GatewayContext,
        names: Sequence[str],
        *,
        origins: TrustedOrigins,
        scopes: Sequence[str] = (),
        scopes_any: Sequence[str] = (),
        condition: Condition | None = None,
    ) -> None:
        self._context = context
        self._names = tuple(names)
        self._scopes = frozenset(scopes)
        self._scopes_any = frozenset(scopes_any)
        # RFC 6750 section 3: the scopes that are needed, so of those of which one is enough only one.
        self._wanted = " ".join(dict.fromkeys((*scopes, *scopes_any[:1])))
        self._origins = origins
        self._condition = condition
        known = context.config.auth
        self.fields = tuple(field for name in names if name in known for field in credential_fields(known[name]))
        """The header fields, in lower case, in which credentials may be: responses depend on them."""

    async def admit(self, ctx: RequestContext, path: Mapping[str, Any]) -> None:
        """Admit a request, and set its identity. Waits only while keys are fetched.

        Args:
            ctx: the request context.
            path: the values of the rule's variables.

        Raises:
            AccessError: the request is refused.
            RequestError: 503, the application has not started or has stopped; or as ``Condition.holds``.
        """
        try:
            authenticator, identity, presented = await self._identify(ctx)
            self._check_origin(ctx, authenticator, identity, presented)
            self._check_scopes(authenticator, identity)
            ctx.identity, ctx.varies = identity, self.fields
            if self._condition is not None and not self._condition.holds(ctx, path):
                result = AuthResult("not-allowed", identity.kind, identity.name)
                raise AccessError(403, "The credential does not permit this request.", result)
        except AccessError as error:
            ctx.auth, ctx.kind, ctx.of_client = error.result, _KINDS[error.status], error.status != 503
            raise
        ctx.auth = AuthResult("admitted", identity.kind, identity.name)

    async def _identify(self, ctx: RequestContext) -> tuple[Authenticator, Identity, Presented]:
        authenticators = (ctx.serving.runtime or self._context.require_runtime()).authenticators
        presented = _presented_by(ctx)
        refused: list[tuple[Authenticator, Refusal]] = []
        for name in self._names:
            authenticator = authenticators[name]
            found = authenticator.authenticate(presented)
            if isinstance(found, Refusal) and found.keys_may_come and await authenticator.renew_keys(presented):
                found = authenticator.authenticate(presented)
            if isinstance(found, Identity):
                return authenticator, found, presented
            if found is not None:
                refused.append((authenticator, found))
        raise _refusal([authenticators[name] for name in self._names], refused)

    def _check_origin(
        self, ctx: RequestContext, authenticator: Authenticator, identity: Identity, presented: Presented
    ) -> None:
        places = authenticator.places
        # With one place the credential was there; another look costs as much as the first.
        place = places[0] if len(places) == 1 else authenticator.used(presented)
        ctx.credential = place
        if place is None or place.kind != "cookie" or self._origins.admit(ctx):
            return
        raise AccessError(
            403,
            "A request with a token in a cookie must come from a page of an allowed origin.",
            AuthResult("foreign-origin", identity.kind, identity.name),
        )

    def _check_scopes(self, authenticator: Authenticator, identity: Identity) -> None:
        granted = identity.scopes
        if self._scopes.issubset(granted) and (not self._scopes_any or not self._scopes_any.isdisjoint(granted)):
            return
        refusal = Refusal("The credential lacks a scope that is needed.", "insufficient_scope", scope=self._wanted)
        result = AuthResult("insufficient-scope", identity.kind, identity.name)
        raise AccessError(403, refusal.reason, result, [("www-authenticate", authenticator.challenge(refusal))])


def _presented_by(ctx: RequestContext) -> Presented:
    origin = ctx.origin
    fields = origin.fields
    return Presented(
        fields.by_name,
        fields.cookies if "cookie" in fields.by_name else NO_COOKIES,
        ctx.given_query,
        ctx.client_certificate,
        origin.trusted,
    )


def _refusal(authenticators: Sequence[Authenticator], refused: Sequence[tuple[Authenticator, Refusal]]) -> AccessError:
    """The error for a request of which no credential is accepted."""
    by_name = {authenticator.name: refusal for authenticator, refusal in refused}
    challenges = [("www-authenticate", each.challenge(by_name.get(each.name))) for each in authenticators]
    if not refused:
        return AccessError(401, "This path needs a credential.", AuthResult("missing"), challenges)
    for authenticator, refusal in refused:
        if refusal.unavailable:
            result = AuthResult(refusal.outcome, authenticator.kind, authenticator.name)
            return AccessError(503, "The credential cannot be verified at the moment.", result, [_RETRY_AFTER])
    authenticator, refusal = refused[0]
    result = AuthResult(refusal.outcome, authenticator.kind, authenticator.name)
    status = 400 if refusal.error == "invalid_request" else 401
    return AccessError(status, refusal.reason, result, challenges)
