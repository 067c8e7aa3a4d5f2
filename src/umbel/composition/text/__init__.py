"""Templates and JMESPath expressions: compiled once at load, evaluated per request."""
