"""Proxy routes: a request is passed on to one upstream, and its response back, while both are under way."""
