"""Loading: from files to a configuration, or to every mistake in them at once. ``load.py`` names the stages."""
