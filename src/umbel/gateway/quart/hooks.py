"""Hooks: the parts of an application that would see or change a request for a configured route in Quart's dispatch.

This module finds hooks and decides nothing. In doubt, something counts as a hook, because Quart's dispatch is slower
but always correct. Middleware (a wrapped or overridden ``asgi_app`` or ``__call__``) is no hook, because it gets every
request in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from quart import signals
from quart.sessions import SecureCookieSessionInterface

if TYPE_CHECKING:
    from quart_trio import QuartTrio


class Hook(NamedTuple):
    """One part of an application that would see or change a request in Quart's dispatch."""

    phrase: str
    """A description for the operator."""
    may_refuse: bool = False
    """Whether the hook runs before the view and can answer in place of the view, as a login does."""


class View(NamedTuple):
    """The view of a configured route in Quart, with the rule of the route."""

    rule: str
    function: object


_SIGNALS = (
    signals.request_started,
    signals.request_finished,
    signals.request_tearing_down,
    signals.got_request_exception,
    signals.appcontext_pushed,
    signals.appcontext_popped,
    signals.appcontext_tearing_down,
)
# Functions of the application itself; those of blueprints do not apply to configured routes.
_REGISTERED = {
    "before_request_funcs": ("before_request", True),
    "url_value_preprocessors": ("url_value_preprocessor", True),
    "after_request_funcs": ("after_request", False),
    "teardown_request_funcs": ("teardown_request", False),
}
# Error statuses that a request for a configured route can get. Quart's None stands for handlers of exception classes.
_RAISED = (None, 400, 401, 403, 408, 413, 415, 500, 503)
_SETTINGS = (
    "DEBUG",
    "PROPAGATE_EXCEPTIONS",
    "SECRET_KEY",
    "SERVER_NAME",
    "TESTING",
    "TRAP_BAD_REQUEST_ERRORS",
    "TRAP_HTTP_EXCEPTIONS",
)
# Attributes of an application that Quart's dispatch uses. A replaced one is a hook.
_PARTS = (
    "_find_error_handler",
    "app_context",
    "app_ctx_globals_class",
    "asgi_http_class",
    "create_url_adapter",
    "dispatch_request",
    "do_teardown_appcontext",
    "do_teardown_request",
    "ensure_async",
    "finalize_request",
    "full_dispatch_request",
    "handle_exception",
    "handle_http_exception",
    "handle_request",
    "handle_user_exception",
    "log_exception",
    "make_response",
    "preprocess_request",
    "process_response",
    "raise_routing_exception",
    "request_class",
    "request_context",
    "response_class",
    "session_interface",
    "sync_to_async",
    "trap_http_exception",
    "url_map_class",
    "url_rule_class",
)
_ENTRANCES = ("__call__", "asgi_app")
"""Attributes through which an ASGI server calls an application."""
_BEFORE_THE_VIEW = (
    "asgi_http_class",
    "dispatch_request",
    "full_dispatch_request",
    "handle_request",
    "preprocess_request",
)


def parts_of(cls: type[QuartTrio]) -> Mapping[str, object]:
    """The attributes of ``cls`` that Quart's dispatch uses, by name.

    To be called when the class has just been made, so that ``find_hooks`` notices later replacements.
    """
    return {name: getattr(cls, name, None) for name in (*_PARTS, *_ENTRANCES)}


def replaces_entrance(cls: type[QuartTrio], parts: Mapping[str, object]) -> bool:
    """Whether ``asgi_app`` or ``__call__`` of ``cls`` is not the one in ``parts`` (``parts_of(Umbel)``)."""
    return any(getattr(cls, name) is not parts[name] for name in _ENTRANCES)


def find_hooks(app: QuartTrio, parts: Mapping[str, object], views: Mapping[str, View]) -> tuple[Hook, ...]:
    """Find all hooks of ``app``.

    Args:
        app: the application.
        parts: ``parts_of(Umbel)``.
        views: the views of the configured routes, by endpoint.
    """
    return (
        *_replaced(app, parts, views),
        *_registered(app),
        *(Hook(f"the setting {name}") for name in _SETTINGS if app.config[name]),
        *_of_the_map(app),
    )


def _replaced(app: QuartTrio, parts: Mapping[str, object], views: Mapping[str, View]) -> Iterator[Hook]:
    for name in _PARTS:
        if name in vars(app) or getattr(type(app), name, None) is not parts[name]:
            yield Hook(f"the application's own {name}", name in _BEFORE_THE_VIEW)
    # The program may have replaced it in Quart's class before ``parts_of`` was called.
    if "session_interface" not in vars(app) and type(app.session_interface) is not SecureCookieSessionInterface:
        yield Hook("the application's own session_interface")
    for endpoint, view in views.items():
        if app.view_functions.get(endpoint) is not view.function:
            yield Hook(f"the application's own view function for {view.rule}", may_refuse=True)


def _registered(app: QuartTrio) -> Iterator[Hook]:
    for attribute, (kind, may_refuse) in _REGISTERED.items():
        for function in getattr(app, attribute)[None]:
            yield Hook(f"the {kind} function {_name(function)}", may_refuse)
    for function in app.teardown_appcontext_funcs:
        yield Hook(f"the teardown_appcontext function {_name(function)}")
    handlers = app.error_handler_spec[None]
    for status in _RAISED:
        for raised, function in handlers[status].items() if status in handlers else ():
            yield Hook(f"the error handler {_name(function)} for {status or raised.__name__}")
    for signal in _SIGNALS:
        if signal.has_receivers_for(app):
            yield Hook(f"a receiver of the signal {signal.name}", signal is signals.request_started)


def _of_the_map(app: QuartTrio) -> Iterator[Hook]:
    if app.url_map.host_matching or app.subdomain_matching or app.url_map.default_subdomain:
        yield Hook("routes by host name")


def _name(function: object) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
