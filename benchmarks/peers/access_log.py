"""The access log of the peers in Python: a thread writes the lines into the file that LOG names."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener


@contextmanager
def written_by_a_thread(log: logging.Logger) -> Iterator[None]:
    """Write what is logged within the block; the lines that are left are written at its end."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    file = logging.FileHandler(os.environ["LOG"])
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(QueueHandler(records))
    log.setLevel(logging.INFO)
    log.propagate = False
    listener = QueueListener(records, file)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
