"""Names of credentials, which logs hide."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.config.schema.access.credential_names import logs_of
from umbel.config.schema.sections import Config
from umbel.core.diagnostics.redact import Redactor


def configuration(redact: tuple[str, ...] = (), **sections: Any) -> Config:
    return Config.model_validate({"auth": sections, "logs": {"redact": redact}})


def jwt(*places: str) -> dict[str, Any]:
    issuers = ({"iss": "https://id.example/", "keys": "/keys.pem"},)
    return {"kind": "jwt", "algorithms": ("ES256",), "issuers": issuers, "from": places}


PARTNERS = {"kind": "api-key", "header": "X-Partner", "file": "/partners.toml"}
MACHINES = {"kind": "mtls", "allow": ("dns:batch.internal",)}


@pytest.mark.parametrize("name", ["sid", "__Host-user", "ticket", "x-partner"])
def test_the_logs_hide_each_place_in_which_auth_looks_for_credentials(name: str) -> None:
    config = configuration(
        users=jwt("header", "cookie:sid", "cookie:__Host-user", "query:ticket"), partners=PARTNERS, machines=MACHINES
    )
    redactor = Redactor(logs_of(config).redact)

    assert redactor.is_secret(name)
    assert "hunter2" not in redactor.text(f"GET /orders?a=1&{name}=hunter2 failed")
    assert not Redactor(config.logs.redact).is_secret(name)


def test_the_names_that_logs_hide_already_stay_first_and_are_not_repeated() -> None:
    config = configuration(("x-session-*", "sid"), users=jwt("cookie:sid", "query:ticket"))

    assert logs_of(config).redact == ("x-session-*", "sid", "cookie", "ticket")


def test_a_configuration_without_auth_keeps_its_section_logs() -> None:
    config = configuration(("x-session-*",))

    assert logs_of(config) is config.logs
