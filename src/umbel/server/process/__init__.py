"""The server's process: listening sockets, signals, garbage collector, heap and settings."""
