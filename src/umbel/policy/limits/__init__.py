"""Decisions of limits: rates, bursts, and what several processes spend."""
