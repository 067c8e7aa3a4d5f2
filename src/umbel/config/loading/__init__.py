"""From files to a configuration, or to every mistake in them at once."""
