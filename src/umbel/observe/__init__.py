"""Metrics: what a process counts, how the figures of several processes are added, and the text that a scraper reads."""
