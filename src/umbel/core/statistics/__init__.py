"""Statistics that several packages keep: the buckets of histograms, and the maximum of the last minute."""
