"""Proxy routes: the plan of a route, and the call that it makes for a request."""
