"""The worker: an application loaded and served on the master's sockets."""
