"""Requests, contexts, errors, lifespan, websockets and test client of Quart, adapted to the gateway."""
