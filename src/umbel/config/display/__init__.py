"""A configuration as people may see it: as loaded, without secrets."""
