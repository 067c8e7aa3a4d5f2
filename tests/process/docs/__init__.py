"""Documents that a reader follows with an editor and terminals."""
