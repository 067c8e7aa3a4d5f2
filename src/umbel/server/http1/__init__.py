"""HTTP/1.1: the connection, its requests with their responses, and the parsers of heads and bodies."""
