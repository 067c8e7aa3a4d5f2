"""A configuration with one page of one required and one optional call, for tests of ``umbel.testing``."""

from __future__ import annotations

PAGE = """
[upstreams.users]
urls = ["http://users:9001/base"]
{users}
[upstreams.orders]
urls = ["http://orders:9002"]
[[routes]]
path = "/page/<id>"
deadline = "2s"
calls.profile = {{ upstream = "users", path = "/users/{{id}}" }}
calls.orders = {{ upstream = "orders", path = "/orders{{?id}}", optional = true, default = [] }}
"""


def page(users: str = "") -> str:
    """The configuration as text; ``users`` has further keys of the upstream ``users``."""
    return PAGE.format(users=users)


def one_call(call: str = "", upstream: str = "") -> str:
    """A configuration whose route ``/`` makes the call ``it`` of the upstream ``u``.

    ``call`` and ``upstream`` have further keys.
    """
    return f"""
[upstreams.u]
urls = ["http://u"]
{upstream}
[[routes]]
path = "/"
deadline = "10s"
[routes.calls.it]
upstream = "u"
path = "/it"
{call}
"""
