"""The destinations of a log's lines: files with rotation and retention, stdout, and the crash buffer."""
