"""Connection pool: connections that are dialled, kept alive and reused, each with one exchange at a time."""
