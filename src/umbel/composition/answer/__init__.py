"""The answer of a composition: the decision, the combined value, header fields, Cache-Control."""
