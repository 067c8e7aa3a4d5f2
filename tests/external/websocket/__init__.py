"""Conformance of the passing on of WebSocket connections, with Autobahn's cases: ``make external ARGS=websocket``."""
