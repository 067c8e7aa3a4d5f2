"""HTTP/2 on the ``h2`` library: connection, streams, sending, and the limits of both."""
