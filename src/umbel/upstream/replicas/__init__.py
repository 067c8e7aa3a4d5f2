"""Replicas of an upstream: addresses, DNS, health checks and load balancing."""
