"""The HTTP side for operators and scrapers: addresses, guards, pages and commands. A source gives what it shows."""
