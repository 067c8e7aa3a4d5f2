"""Syntax and meaning of HTTP fields, codings, media types and charsets, for clients and servers. No I/O."""
