"""HTTP/2 on the ``h2`` library: a connection, its streams, and the bounds on both."""
