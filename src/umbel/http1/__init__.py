"""Parsers of HTTP/1.1 messages (RFC 9112) without I/O: responses, and the chunked transfer coding."""
