"""Scripted upstreams, over sockets and in memory, and calls of our client to them."""
