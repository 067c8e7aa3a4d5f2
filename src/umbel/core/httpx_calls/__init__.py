"""Calls through foreign httpx transports, and the conversion between httpx messages and header fields."""
