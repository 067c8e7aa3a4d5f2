"""Policies about the replicas of an upstream: load balancing, outlier ejection, health, DNS refresh."""
