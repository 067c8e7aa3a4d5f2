"""Connection pool: connections that are dialled, kept alive and reused, each with one request at a time."""
