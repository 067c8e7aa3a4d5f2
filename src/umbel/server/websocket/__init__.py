"""WebSocket (RFC 6455): between the bytes of a connection or a stream and an ASGI application."""
