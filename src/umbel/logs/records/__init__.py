"""From an event to one line of JSON."""
