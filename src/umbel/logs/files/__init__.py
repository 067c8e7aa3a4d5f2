"""Where lines end up: files, their rotation, stdout, and the ring that outlives a process."""
