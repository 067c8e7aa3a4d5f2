"""Cassettes: recorded responses of upstreams with their timing, which tests and ``umbel replay`` play."""
