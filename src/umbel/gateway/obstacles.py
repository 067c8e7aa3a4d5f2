"""What of an application would see, or change, a request that is answered without Quart's dispatch.

Asked when serving begins and whenever something has changed. Each obstacle is told as a phrase for the operator. When
in doubt it is one: Quart's way is slower and always right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from quart import signals
from quart.sessions import SecureCookieSessionInterface

if TYPE_CHECKING:
    from .app import Umbel

Hooks = tuple[Sized, ...]
"""What is empty where nobody has hooked in. The containers themselves, so that what comes later is seen."""
Settings = tuple[Any, ...]

_SIGNALS = (
    signals.request_started,
    signals.request_finished,
    signals.request_tearing_down,
    signals.got_request_exception,
    signals.appcontext_pushed,
    signals.appcontext_popped,
    signals.appcontext_tearing_down,
)
_REGISTERED = {
    "before_request_funcs": "a before_request function",
    "after_request_funcs": "an after_request function",
    "teardown_request_funcs": "a teardown_request function",
    "url_value_preprocessors": "a url_value_preprocessor",
}
# The statuses that a request for a route of the configuration can raise; None stands for any exception.
_RAISED = (None, 400, 408, 413, 415, 500, 503)
_SETTINGS = (
    "DEBUG",
    "PROPAGATE_EXCEPTIONS",
    "SECRET_KEY",
    "SERVER_NAME",
    "TESTING",
    "TRAP_BAD_REQUEST_ERRORS",
    "TRAP_HTTP_EXCEPTIONS",
)
# Every part that Quart's dispatch of a request is made of. Whoever wraps ``asgi_app`` is called all the same.
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

settings_of: Callable[[Mapping[str, Any]], Settings] = itemgetter(*_SETTINGS)
"""The settings that decide whether Quart is needed."""


def parts_of(cls: type[Umbel]) -> Mapping[str, object]:
    """The parts of Quart's dispatch as ``cls`` has them; to be asked while nobody can have changed them."""
    return {name: getattr(cls, name, None) for name in _PARTS}


def hooks_of(app: Umbel) -> Hooks:
    """Where whoever wants to see every request hooks in."""
    registered: list[Sized] = [getattr(app, kind)[None] for kind in _REGISTERED]
    return (*registered, app.teardown_appcontext_funcs, *(signal.receivers for signal in _SIGNALS))


def find_obstacle(app: Umbel, parts: Mapping[str, object]) -> str | None:
    """Why requests must go through Quart; None if they need not. ``parts`` are those of ``Umbel`` itself."""
    for name, part in parts.items():
        if name in vars(app) or getattr(type(app), name, None) is not part:
            return f"{name} is not Umbel's own"
    for kind, hook in _REGISTERED.items():
        if getattr(app, kind)[None]:
            return f"{hook} of the application"
    if app.teardown_appcontext_funcs:
        return "a teardown_appcontext function of the application"
    if any(app.error_handler_spec[None].get(status) for status in _RAISED):
        return "an error handler of the application"
    for signal in _SIGNALS:
        if signal.has_receivers_for(app):
            return f"a receiver of the signal {signal.name}"
    for name, value in zip(_SETTINGS, settings_of(app.config), strict=True):
        if value:
            return f"the setting {name}"
    if type(app.session_interface) is not SecureCookieSessionInterface:
        return "sessions of the application's own"
    if app.url_map.host_matching or app.subdomain_matching or app.url_map.default_subdomain:
        return "routes by host name"
    return None
