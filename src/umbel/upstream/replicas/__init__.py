"""The replicas of an upstream: where they are, which of them work, and which is next."""
