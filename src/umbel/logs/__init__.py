"""The records: JSON lines in files, handed over without waiting and written by one task.

The gateway opens a recorder around its lifespan; other trio programs may too. Light to import: no httpx, no Quart.
"""

from .recorder import FileRecorder, RecorderStatistics, ensure_writable, open_recorder
from .stream import StreamStatistics

__all__ = ["FileRecorder", "RecorderStatistics", "StreamStatistics", "ensure_writable", "open_recorder"]
