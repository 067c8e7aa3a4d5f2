"""The commands that ask a running instance, and their client: ``ctl``, ``top`` and ``slow``."""
