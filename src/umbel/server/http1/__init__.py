"""HTTP/1.1 on one connection: read a head, have the request answered, and again until the connection ends."""
