"""Property tests of limits."""
