"""HTTP/1.1 on one connection: read a head, have the request answered, and repeat until the connection ends."""
