"""Authentication over sockets, with a real provider."""
