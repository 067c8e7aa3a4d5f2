"""The section ``[admin]``: addresses of the admin side beside its Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from ..constraints import ConstraintViolation, enforce
from ..section import Section
from ..values.types import AdminToken, TcpAddress


def _admin_constraints(admin: Admin) -> Iterator[ConstraintViolation]:
    """Yield a violation for bind without token, token without bind, and metrics that equals bind."""
    if admin.bind is not None and admin.token is None:
        reason = "bind needs a token beside it, because any process could connect; the Unix socket needs none"
        yield ConstraintViolation(reason, ("bind", "token"))
    if admin.token is not None and admin.bind is None:
        yield ConstraintViolation("token has an effect only with bind", ("token", "bind"))
    if admin.metrics is not None and admin.metrics == admin.bind and not admin.metrics.endswith(":0"):
        reason = "metrics needs another address than bind, where /metrics is served with the token"
        yield ConstraintViolation(reason, ("metrics", "bind"))


class Admin(Section):
    """The admin side: state, metrics and commands of the process, for operators. Its Unix socket needs no key."""

    bind: TcpAddress | None = None
    """An address (host:port) at which the admin side is also served, with token. It has no TLS. Default: none."""
    token: Annotated[AdminToken | None, Field(repr=False)] = None
    """The secret for bind, of at least 16 characters; sent as `Authorization: Bearer`, or once as `/?token=`. Write a
    variable, such as "${ADMIN_TOKEN}". Default: none."""
    metrics: TcpAddress | None = None
    """An address (host:port) at which GET /metrics alone is served, without a token. Default: none."""

    _checked = model_validator(mode="after")(enforce(_admin_constraints))
