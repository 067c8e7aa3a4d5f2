"""The admin side of a process without a master: its thread, and what it reads of the process's event loop."""
