"""Mistakes in a configuration: how loading goes on after one, where it is, and the sentence about it."""
