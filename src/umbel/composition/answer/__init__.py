"""From outcomes to the one answer."""
