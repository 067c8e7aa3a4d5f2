"""Calls to an upstream: admission, attempts, retries, hedges, coalescing, and the body of the response."""
