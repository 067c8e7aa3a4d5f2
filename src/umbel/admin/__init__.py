"""The admin side of a process: its figures, its state and its commands, for operators and scrapers."""
