"""A route of the configuration as facts: which one answers, what it does, and how that is drawn."""
