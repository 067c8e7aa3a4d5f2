"""From the configuration of a route to its plan."""
