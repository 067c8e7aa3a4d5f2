"""Test servers and clients of our server: ASGI drivers, connections in memory and over sockets, raw requests."""
