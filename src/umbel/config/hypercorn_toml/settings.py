"""Loading of hypercorn.toml: the keys of the file replace defaults, and options of the command line replace both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError, ConfigProblem
from ...core.regular_file import NOT_WRITABLE_REMEDY, why_not_writable
from ..loading.certificates import certificate_errors
from ..loading.errors.did_you_mean import sections_with_key, suggestion
from ..loading.errors.validation_errors import schema_violations
from ..loading.file_reader import SourceFile, UnreadableError, read_settled
from ..schema.section_tree import keys_of
from ..schema.sections import Server, Tls
from .keys import FOR_TLS, FOR_UNIX_SOCKETS, IN_UMBEL_TOML, PATHS, WITHOUT_EFFECT, HypercornFile

DEFAULTS: Mapping[str, Any] = {
    # No response names the server, the access log is Umbel's, and requests in flight have time to end.
    "include_server_header": False,
    "accesslog": None,
    "loglevel": "WARNING",
    "graceful_timeout": 20.0,
    # Hypercorn's 100 overflow when a few hundred clients connect at once. The kernel then drops their SYN, and each
    # waits a second or more before it tries again. The kernel allows at most net.core.somaxconn, 4096 on Linux.
    "backlog": 4096,
    "worker_class": "trio",
}

Warn = Callable[[ConfigProblem], object]

_UNKNOWN = "is not one of Hypercorn's keys"
_AS_IT_IS = {"workers": 1, "include_server_header": False}
"""Values for which no warning is given, since they say what Umbel does anyway."""
_BINDS = ("bind", "insecure_bind", "quic_bind")
_ADDRESS = "is not an address; write HOST:PORT (a port is at most 65535), unix:/path or fd://NUMBER"
# The keys of a TLS table of umbel.toml, with those of hypercorn.toml.
_TLS_KEYS = {"ca": "ca_certs", "cert": "certfile", "key": "keyfile"}


def hypercorn_keys(
    file: str | os.PathLike[str] | None = None,
    *,
    bind: Sequence[str] = (),
    warn: Warn | None = None,
    permissions: bool = False,
) -> dict[str, Any]:
    """Load Hypercorn's settings: ``bind`` replaces the key of ``file``, and ``file`` replaces the defaults. Blocks.

    Paths in the result are absolute; those in the file are relative to it. ``workers`` is always 1, since each process
    serves alone.

    Args:
        file: the path of hypercorn.toml; None: only defaults.
        bind: addresses from the command line.
        warn: receives a warning for each key of the file without effect.
        permissions: also warn of each path that the user of this process may not create.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has mistakes: an unknown key, a key that belongs in
            umbel.toml, a wrong value, an unusable certificate, or a wrong address. It carries all mistakes.
    """
    problems = [ConfigProblem("--bind", None, "", f'"{text}" {_ADDRESS}') for text in bind if not _is_address(text)]
    settings = dict(DEFAULTS)
    if file is not None:
        try:
            source = read_settled(Path(file), os.fspath(file))
        except UnreadableError as error:
            raise ConfigError([ConfigProblem(os.fspath(file), error.line, "", error.reason), *problems]) from error
        _make_absolute(source)
        problems += _problems(source)
        settings |= source.data
    if problems:
        raise ConfigError(problems)
    if bind:
        settings["bind"] = list(bind)
    if file is not None and warn is not None:
        _warn_of(source, settings, warn, permissions=permissions)
    settings["workers"] = 1
    return settings


def mistakes(config: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each certain mistake in the attributes of a ``hypercorn.config.Config``.

    Hypercorn's command has made the attributes from a file, so their lines are unknown. A name that resembles no key is
    no mistake: a configuration in Python may have variables of its own.
    """
    attributes = {name.removeprefix("_"): value for name, value in config.items()}
    plain = {
        name: value
        for name, value in attributes.items()
        if isinstance(value, bool | int | float | str | list | dict)  # Other types cannot come from a TOML file.
        and name not in (*_BINDS, "application_path", "quic_addresses", "verify_mode", "verify_flags")
        and (name in HypercornFile.model_fields or name in IN_UMBEL_TOML or _unknown(name) != _UNKNOWN)
    }
    return sorted(f"{name} {reason}" for name, reason in _wrong_keys(plain))


def _problems(source: SourceFile) -> list[ConfigProblem]:
    """Return every mistake of a file, in the order of its lines."""
    wrong = list(_wrong_keys(source.data))
    known = {name for name, _ in wrong}
    wrong += (each for each in _unusable_files(source.data) if each[0] not in known)
    found = [ConfigProblem(source.name, source.line((name,)), name, reason) for name, reason in wrong]
    return sorted(found, key=lambda each: (each.line or 0, each.key))


def _wrong_keys(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each wrong key, and why."""
    for name in data.keys() & IN_UMBEL_TOML.keys():
        yield name, f"belongs in umbel.toml; write {IN_UMBEL_TOML[name]} in its [server] instead"
    for each in schema_violations(HypercornFile, {name: data[name] for name in data if name not in IN_UMBEL_TOML}):
        name = str(each.path[0])
        yield name, _unknown(name) if each.kind == "unknown" else each.reason
    for name in _BINDS:
        for text in _texts(data.get(name)):
            if not _is_address(text):
                yield name, f'"{text}" {_ADDRESS}'


def _unknown(name: str) -> str:
    if name in keys_of(Server):
        return "belongs in [server] of umbel.toml, not here"
    elsewhere = [f"{place} of umbel.toml" for place in sections_with_key(name, HypercornFile)]
    return f"{_UNKNOWN}{suggestion(name, HypercornFile.model_fields, elsewhere)}"


def _is_address(text: str) -> bool:
    """Whether a text is an address to bind. It must have a host, and a port of at most 65535."""
    if text.startswith("unix:"):
        return len(text) > len("unix:")
    if text.startswith("fd://"):
        return _is_number(text.removeprefix("fd://"))
    host, _, port = text.rpartition(":")
    if host.startswith("[") or host.endswith("]"):
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else ""
    return bool(host) and _is_number(port) and int(port) <= 65535


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _unusable_files(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keys of files that TLS cannot use, with the reason.

    One of certfile and keyfile without the other is a mistake too: Hypercorn would serve without TLS.
    """
    for there, missing in (("certfile", "keyfile"), ("keyfile", "certfile")):
        if there in data and missing not in data:
            yield there, f"needs {missing} beside it, or nothing is encrypted"
    if data.get("verify_mode") in (1, 2) and "certfile" in data and "ca_certs" not in data:
        yield "verify_mode", "needs ca_certs beside it, the authorities by which clients' certificates are verified"
    wanted = _TLS_KEYS if "certfile" in data and "keyfile" in data else {"ca": "ca_certs"}
    given = {ours: data[theirs] for ours, theirs in wanted.items() if isinstance(data.get(theirs), str)}
    together = [given]
    if "keyfile_password" in data:
        # The check takes no password, so each file is checked by itself. The start of the server checks the pair.
        together = [{name: path} for name, path in given.items()]
    for files in together:
        for path, reason in certificate_errors([((), Tls.model_construct(**files))]):
            yield _TLS_KEYS[str(path[-1])], reason


def _make_absolute(source: SourceFile) -> None:
    """Make relative paths absolute, also those in addresses of Unix sockets. They are relative to the file."""
    for key in PATHS:
        if isinstance(value := source.data.get(key), str):
            source.data[key] = str(source.directory / value)
    if isinstance(log := source.data.get("errorlog"), str) and log != "-":
        source.data["errorlog"] = str(source.directory / log)
    if isinstance(logging := source.data.get("logconfig"), str):
        form, colon, path = logging.rpartition(":")
        source.data["logconfig"] = f"{form}{colon}{source.directory / path}"
    for key in _BINDS:
        if key in source.data and (texts := list(_texts(source.data[key]))):
            source.data[key] = [
                f"unix:{source.directory / text[5:]}" if text.startswith("unix:") and _is_address(text) else text
                for text in texts
            ]


def _texts(value: object) -> Iterable[str]:
    """Return a text or the texts of a list as an iterable; empty for any other value, which the schema reports."""
    texts = [value] if isinstance(value, str) else value
    return texts if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts) else ()


def _warn_of(source: SourceFile, settings: Mapping[str, Any], warn: Warn, *, permissions: bool) -> None:
    """Call ``warn`` for each key of the file without effect, in the order of the lines.

    Args:
        settings: all settings in force.
        permissions: also warn of paths that cannot be created.
    """
    found = [(name, f"is ignored here: {reason}") for name, reason in _without_effect(source.data, settings)]
    found += _not_writable(source.data) if permissions else ()
    for name, reason in sorted(found, key=lambda each: source.line((each[0],)) or 0):
        warn(ConfigProblem(source.name, source.line((name,)), name, reason))


def _not_writable(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key whose file cannot be created, with the reason.

    A server replaces the file of a Unix socket, so the check is whether a new file can be made in its directory.
    """
    if "pid_path" in given and (reason := why_not_writable(given["pid_path"])):
        yield "pid_path", f"the file could not be written: {reason}; {NOT_WRITABLE_REMEDY}"
    for name in ("bind", "insecure_bind"):
        for text in _texts(given.get(name, ())):
            if text.startswith("unix:") and (reason := why_not_writable(f"{text.removeprefix('unix:')}.new")):
                yield name, f"the socket could not be made: {reason}; {NOT_WRITABLE_REMEDY}"


def _without_effect(given: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key of the file without effect, with the reason."""
    for name in given.keys() & WITHOUT_EFFECT.keys():
        if given[name] != _AS_IT_IS.get(name):
            yield name, WITHOUT_EFFECT[name]
    if "certfile" not in settings or "keyfile" not in settings:
        for name in given.keys() & set(FOR_TLS):
            yield name, "nothing is encrypted without certfile and keyfile"
    elif "ca_certs" in given and not given.get("verify_mode"):
        yield "ca_certs", "no client is asked for a certificate without verify_mode = 1 (optional) or 2 (required)"
    if not any(text.startswith("unix:") for text in _texts(settings.get("bind", ()))):
        for name in given.keys() & set(FOR_UNIX_SOCKETS):
            yield name, "it is for Unix sockets, and none is bound; the process does not change its user"
