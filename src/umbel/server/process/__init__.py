"""What belongs to the process that serves: its sockets, signals, memory and settings."""
