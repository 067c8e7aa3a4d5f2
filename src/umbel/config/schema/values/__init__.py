"""Types of values of keys, with their units and common defaults."""
