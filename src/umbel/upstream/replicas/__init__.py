"""Replicas of an upstream: their addresses, DNS, health checks, and load balancing."""
