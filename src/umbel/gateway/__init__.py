"""Gateway: ``Umbel``, the application that answers inbound requests by compositions of upstream calls.

Import the application from ``umbel`` or ``umbel.gateway.app``; importing this package itself imports nothing else.
"""
