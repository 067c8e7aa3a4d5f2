"""HTTP/1.1 messages read from bytes, without I/O, for clients and servers."""
