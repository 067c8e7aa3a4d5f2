"""The records of a log: reading, printing and statistics."""
