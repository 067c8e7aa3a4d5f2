"""Records of a log: reading, printing and statistics."""
