"""Public tools against the server, as real processes on loopback: ``make conformance``."""
