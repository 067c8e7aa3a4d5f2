"""Helpers for tests of the server: ASGI drivers, test servers, clients in memory and over sockets, raw requests."""
