"""The records of a log: read, shown and summed up."""
