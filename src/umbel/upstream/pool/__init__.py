"""Connections to upstreams: kept, dialled, and the one request that each carries at a time."""
