"""The serving process: its sockets, signals, memory and settings."""
