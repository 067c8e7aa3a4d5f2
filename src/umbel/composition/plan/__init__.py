"""Plans: a route of the configuration, compiled and checked at load."""
