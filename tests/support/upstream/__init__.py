"""Scripted upstreams over sockets and in memory, and calls of Umbel's client to them."""
