"""The stage of a request that a frame belongs to: by its file, and for a few files by its function or line.

Pure, except that it reads the source line of a frame.
"""

from __future__ import annotations

import linecache
import re
from pathlib import PurePath

GC, THREADS, OTHER = "garbage collection", "logs: writer's threads", "other"
_JSON_IN, _JSON_OUT = "JSON: decode", "JSON: encode"
_RECEIVE, _SEND = "sockets: recv (system call)", "sockets: send (system call)"
_STREAMS = "sockets: streams, reader, timers"
_TLS = "sockets: TLS (OpenSSL)"
_EPOLL = "epoll: own and trio's (system call)"
_CONNECTION, _EXCHANGE, _HEAD = "server: connections", "server: request loop and answer", "server: head"
_ENTRY, _FRAMEWORK = "gateway: entry and record", "gateway: Quart and werkzeug"
_INPUTS, _ANSWER = "gateway: inputs", "gateway: answer"
_PROXY, _CODING = "gateway: proxy route", "gateway: compression"
_ENGINE, _RESULT, _REQUEST = "composition: engine", "composition: result of a call", "composition: templates, request"
_SHAPE = "composition: shape"
_CALL, _POLICIES, _POOL = "upstream: call and attempts", "upstream: policies", "upstream: pool and connection"
_HTTPX, _WRITE, _PARSE = "upstream: httpx objects", "upstream: request to bytes", "upstream: parse"
_RECORD, _ENCODE, _QUEUE = "logs: record", "logs: encode", "logs: queue and writer"
_SCHEDULER, _NURSERIES, _TRIO = "trio: scheduler", "trio: nurseries, tasks, scopes", "trio: other"
_ARMING = "trio: epoll, Python side"

ORDER = (
    _RECEIVE, _SEND, _TLS, _STREAMS, _CONNECTION, _HEAD, _EXCHANGE, _ENTRY, _FRAMEWORK, _INPUTS, _ANSWER, _CODING,
    _PROXY, _ENGINE, _RESULT, _REQUEST, _SHAPE, _CALL, _POLICIES, _HTTPX, _POOL, _WRITE, _PARSE, _JSON_IN, _JSON_OUT,
    _RECORD, _ENCODE, _QUEUE, THREADS, _SCHEDULER, _NURSERIES, _ARMING, _EPOLL, _TRIO, GC, OTHER,
)  # fmt: skip
"""The rows of the table, in about the order in which a request meets them."""

_FILES: dict[str, dict[str, str]] = {
    "server": {
        _HEAD: (
            "http1/request_head http1/host http1/head_errors response/own_fields response/response_head "
            "limits/server_limits"
        ),
        _EXCHANGE: "http1/connection http1/cycle http1/request_body asgi state response/error_response limits/memory",
        "": _CONNECTION,
    },
    "gateway": {
        _INPUTS: (
            "request/inputs request/query request/request_body quart/quart_body request/content_negotiation "
            "request/paths request/trace_ids request/client_origin request/request_fields "
            "request/client_deadline"
        ),
        _ANSWER: (
            "response/answer response/reply response/diagnostic_headers response/validators "
            "response/problems response/sending response/streaming"
        ),
        _CODING: "browsers/compression request/accept_encoding",
        _PROXY: (
            "proxy/proxied_request proxy/proxy_cycle proxy/proxy_rules proxy/proxy_view proxy/tunnel proxy/upload "
            "proxy/websocket_handshake proxy/websocket_routes response/lasting"
        ),
        "": _ENTRY,
    },
    "composition": {
        _RESULT: "call_result fan_out",
        _REQUEST: (
            "text/template request/request_template request/code_request text/expression plan/scope "
            "request/call_options request/call_policies plan/compiler plan/plan"
        ),
        _SHAPE: "answer/result_builder answer/cache_control answer/result answer/decision",
        _JSON_IN: "decode json_check",
        _PROXY: "proxy/proxy_plan proxy/field_changes proxy/response_rewrite",
        "": _ENGINE,
    },
    "upstream": {
        _WRITE: "pool/request_head",
        _PARSE: "calls/response_body aclosing_iter",
        _POLICIES: (
            "calls/coalesce queue_limiter replicas/balance replicas/health replicas/sources "
            "state_events calls/retry_safety calls/failure_kind"
        ),
        _POOL: (
            "pool/pool pool/connection pool/connection_state pool/response_stream pool/idle_connections "
            "pool/dial replicas/address pool/tls_session_cache pool/tls replicas/dns replicas/origin"
        ),
        "": _CALL,
    },
    "http1": {"": _PARSE},
    "core": {_ENCODE: "diagnostics/redact", _CODING: "http/compressors", "": _CALL},
    "net": {"": _STREAMS},
    "logs": {
        _RECORD: (
            "recorder records/record records/call_line_template records/sampling records/level context records/schema"
        ),
        _ENCODE: "records/encode records/sanitize",
        "": _QUEUE,
    },
}
"""Of each package the files (without ``.py``) by stage, and under ``""`` the stage of all others."""

_BY_FILE = {
    f"{package}/{name}.py": stage
    for package, stages in _FILES.items()
    for stage, names in stages.items()
    if stage
    for name in names.split()
}
_OTHERS = {package: stages[""] for package, stages in _FILES.items()} | {"policy": _POLICIES}
_LIBRARIES = {
    "quart": _FRAMEWORK,
    "quart_trio": _FRAMEWORK,
    "werkzeug": _FRAMEWORK,
    "flask": _FRAMEWORK,
    "blinker": _FRAMEWORK,
    "http_sf": _ANSWER,
    "httpx": _HTTPX,
    "jmespath": _REQUEST,
    "trio_util": _TRIO,
}
_LINES = (
    (re.compile(r"socket\.send\("), {"net": _SEND}),
    (re.compile(r"socket\.recv(_into)?\("), {"net": _RECEIVE}),
    (re.compile(r"_(ssl|incoming|outgoing)\.(read|write|do_handshake)\("), {"net": _TLS}),
    (re.compile(r"\bpoll\(0|poll\.poll\("), {"net": _EPOLL, "trio": _EPOLL}),
    (re.compile(r"\bjson\.decode\(|_decoder\.decode\("), dict.fromkeys(("gateway", "composition"), _JSON_IN)),
    (re.compile(r"\bjson\.encode\(|= _encode\("), dict.fromkeys(("gateway", "composition"), _JSON_OUT)),
)
"""Lines that are a stage of their own, by package; the kernel's part of a call belongs to the line that makes it."""

_NURSERY = re.compile(r"(Nursery|CancelS|Deadlines|Task\b)|\.(spawn_impl|task_exited|_remove_from_parent_nursery)\b")


def stage_of(path: str, function: str, line: int) -> str | None:
    """Return the stage of a frame at ``line`` of ``function`` (qualified) in the file ``path``; None if it has none.

    Such a frame, one of the standard library's, works for the one that called it.
    """
    parts = PurePath(path).parts
    package, rest = _place(parts)
    if not package:
        return None
    if (stages := [stages for stages in _LINES if package in stages[1]]) and (
        text := linecache.getline(path, line).strip()
    ):
        for pattern, by_package in stages:
            if pattern.search(text):
                return by_package[package]
    if package == "trio":
        return _of_trio(rest, function)
    return _LIBRARIES.get(package) or _BY_FILE.get(f"{package}/{rest}") or _OTHERS.get(package)


def of_file(package: str, name: str) -> str | None:
    """Return the stage of a whole file of Umbel, such as ``("upstream", "pool.py")``."""
    return _BY_FILE.get(f"{package}/{name}") or _OTHERS.get(package)


def named_files() -> set[str]:
    """Return the files of Umbel that have a stage of their own, relative to the package."""
    return set(_BY_FILE)


def _place(parts: tuple[str, ...]) -> tuple[str, str]:
    """Return Umbel's package or the library, and the file within it; empty texts for other files."""
    for index in range(len(parts) - 1, 0, -1):
        if parts[index - 1] == "umbel":
            return (parts[index], "/".join(parts[index + 1 :])) if index < len(parts) - 1 else ("umbel", parts[index])
        if parts[index - 1] == "site-packages":
            return parts[index], "/".join(parts[index + 1 :])
    return "", ""


def _of_trio(file: str, function: str) -> str:
    if "epoll" in file:
        return _ARMING
    if not file.startswith("_core/"):
        return _TRIO
    return _NURSERIES if _NURSERY.search(function) else _SCHEDULER
