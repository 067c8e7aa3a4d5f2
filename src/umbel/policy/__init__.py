"""Pure decisions: each takes ``now`` and facts and returns what to do. No clock, no trio, no I/O."""
