"""``@app.requires``, and ``auth`` and ``limits`` of ``@app.compose``: admission to what is written in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from quart import current_app

from ...auth.current_identity import set_current
from ...config.schema.sections import PUBLIC
from ...core.console import say
from ...core.errors import NotRunningError
from ...core.events import LogMessage
from ..request_context import find_request_context, find_websocket_context
from .configured_access import pages_of
from .route_access import RouteAccess
from .route_admission import RouteAdmission, admission_of
from .trusted_origins import TrustedOrigins

if TYPE_CHECKING:
    from ..context import GatewayContext

AnyFunction = Callable[..., Any]
FunctionT = TypeVar("FunctionT", bound=AnyFunction)
EVENT = "auth.open_routes"
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
"""A scope (RFC 6749 section 3.3)."""
_ATTRIBUTE = "_umbel_requires"
_WRAPPERS_MAX = 100


class Required(NamedTuple):
    """A function with the access that it requires."""

    guarded: AnyFunction
    """The function that admits a request and then calls ``function``."""
    function: AnyFunction
    admission: RouteAdmission | None
    """None: the function is public, without limits."""


class CodeAccess:
    """The access of the handlers and views of one application.

    Args:
        context: the gateway context.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._required: list[Required] = []

    def requires(
        self, names: Sequence[str], scopes: Sequence[str], scopes_any: Sequence[str], limits: str | Sequence[str]
    ) -> Callable[[FunctionT], FunctionT]:
        """Make the decorator ``@app.requires``.

        Raises:
            ValueError: as ``_access`` and ``admission_of``.
        """
        access = self._access(names, scopes, scopes_any, cors=True)
        admission = admission_of(self._context, access, _as_names(limits))

        def decorate(function: FunctionT) -> FunctionT:
            guarded = _guarded(function, admission)
            required = Required(guarded, function, admission)
            setattr(guarded, _ATTRIBUTE, required)
            self._required.append(required)
            return guarded  # type: ignore[return-value]  # It takes and returns what ``function`` does.

        return decorate

    def of_handler(
        self,
        handler: AnyFunction,
        stated: tuple[str | Sequence[str] | None, Sequence[str], Sequence[str]],
        limits: str | Sequence[str],
        *,
        cors: bool,
    ) -> tuple[AnyFunction, RouteAdmission | None]:
        """The function to call for a handler of ``@app.compose``, and the admission to the handler.

        With ``@app.requires`` it is the function below that decorator, so that the access is checked only once.

        Args:
            handler: the handler.
            stated: auth, scopes and scopes_any of ``@app.compose``.
            limits: limits of ``@app.compose``.
            cors: whether ``[cors]`` says which pages may send credentials.

        Raises:
            ValueError: the access is stated twice; or as ``_access`` and ``admission_of``.
        """
        required = required_by(handler)
        auth, scopes, scopes_any = stated
        is_stated = auth is not None or scopes or scopes_any
        if required is not None and (is_stated or limits):
            raise ValueError("the access is stated twice; write it in auth of @app.compose, or with @app.requires")
        if required is not None:
            return required.function, required.admission
        access = self._access(_as_names(auth or ()), scopes, scopes_any, cors=cors) if is_stated else None
        return handler, admission_of(self._context, access, _as_names(limits))

    def _access(
        self, names: Sequence[str], scopes: Sequence[str], scopes_any: Sequence[str], *, cors: bool
    ) -> RouteAccess | None:
        """The access of a handler or view; None: it is public.

        Raises:
            ValueError: a name is unknown, "none" stands beside others or beside scopes, or no name is given.
        """
        if not all(isinstance(name, str) for name in names):
            raise ValueError('the names of sections are texts: @app.requires("users", "partners")')
        _check_scopes(scopes)
        _check_scopes(scopes_any)
        if tuple(names) == PUBLIC and not scopes and not scopes_any:
            return None
        known = self._context.config.auth
        for name in names:
            if name in PUBLIC:
                raise ValueError('"none" means that anybody may call it, so it stands alone, without scopes')
            if name not in known:
                there = f"name one of: {', '.join(known)}" if known else "the configuration has none yet"
                raise ValueError(f"there is no section [auth.{name}]; {there}")
        if not names:
            raise ValueError('name at least one section [auth.NAME], or "none"')
        origins = TrustedOrigins(pages_of(self._context, None if cors else False))
        return RouteAccess(self._context, names, origins=origins, scopes=scopes, scopes_any=scopes_any)

    def check(self, views: Mapping[str, AnyFunction]) -> None:
        """Check that each function of ``@app.requires`` is registered behind it, not beside it.

        Args:
            views: the registered views and handlers, by endpoint.

        Raises:
            AssertionError: a view is registered without its ``@app.requires``, which would leave it open.
        """
        registered = {id(each): endpoint for endpoint, view in views.items() for each in _unwrapped(view)}
        for required in self._required:
            if id(required.function) in registered and id(required.guarded) not in registered:
                name = getattr(required.function, "__name__", "a view")
                raise AssertionError(
                    f"@app.requires of {name} has no effect, because it stands above the decorator that registers"
                    f" {name}; write it below"
                )

    def warn(self, open_rules: Iterable[str]) -> None:
        """Report the rules of handlers and views that anybody may call, if the configuration has ``[auth]``."""
        rules = sorted(set(open_rules))
        if not rules or not self._context.config.auth:
            return
        sentence = (
            f"anybody may call {', '.join(rules)}: write @app.requires(…) below the decorators that register them;"
            ' with "none" nothing is reported'
        )
        say(f"warning: {sentence}")
        self._context.serving.recorder.record(LogMessage("warning", EVENT, sentence))


def _check_scopes(scopes: Sequence[str]) -> None:
    """Check scopes.

    Raises:
        ValueError: they are a text instead of a list of texts, or one of them can never be granted.
    """
    if isinstance(scopes, str) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("scopes and scopes_any are lists of texts")
    for scope in scopes:
        if _SCOPE.fullmatch(scope) is None:
            raise ValueError(f'"{scope}" is no scope: write it without spaces, quotes and backslashes')


def _as_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple, where a single one may stand without a list."""
    return (names,) if isinstance(names, str) else tuple(names)


def _guarded(function: AnyFunction, admission: RouteAdmission | None) -> AnyFunction:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if admission is not None:
            ctx = find_request_context() or find_websocket_context()
            if ctx is None:
                raise NotRunningError("a function with @app.requires was called without a request")
            await admission.admit(ctx, kwargs)
            set_current(ctx.identity)
        return await current_app.ensure_async(function)(*args, **kwargs)

    return update_wrapper(guarded, function)


def required_by(function: AnyFunction) -> Required | None:
    """What ``@app.requires`` has made of a function; None: the function is not of ``@app.requires``.

    A decorator around it copies the attribute (``functools.wraps``), but is another function.
    """
    found: Required | None = getattr(function, _ATTRIBUTE, None)
    return found if found is not None and found.guarded is function else None


def states_access(function: AnyFunction) -> bool:
    """Whether a view is a function of ``@app.requires``, or a decorator around one."""
    return any(required_by(each) is not None for each in _unwrapped(function))


def _unwrapped(function: AnyFunction) -> Iterator[AnyFunction]:
    """Yield a function and those that it wraps (``functools.wraps``), the outermost first."""
    for _ in range(_WRAPPERS_MAX):
        yield function
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return
        function = inner
