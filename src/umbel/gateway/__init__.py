"""The inbound side: ``Umbel``, a QuartTrio that answers its routes by composing upstream calls.

Import the application from ``umbel.gateway.app`` (or ``umbel``); this package itself stays light. It must not be
imported by anything it builds on: composition, upstream and logs know nothing of HTTP's inbound side.
"""
