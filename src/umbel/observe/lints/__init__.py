"""Lints: what is wrong with the use of an event loop, found while somebody looks, with the place and the remedy."""
