"""The sections about a process as a whole: its server, its master, its admin side, and its traces."""
