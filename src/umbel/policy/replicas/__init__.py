"""Decisions about the replicas of an upstream: which is next, which is left out, which is up."""
