"""Traces: which requests are exported, their spans, and the export by OpenTelemetry's SDK."""
