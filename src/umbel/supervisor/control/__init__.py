"""The messages between master and workers, and what the admin side asks the master."""
