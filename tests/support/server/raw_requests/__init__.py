"""Tables of raw HTTP/1.1 requests by topic: the bytes of a hostile client, and the statuses that the server sends."""

from . import framing, heads, paths
from .case import HOST, LATER, MAX_BODY, Case, Table

TABLES: dict[str, Table] = {
    "length": framing.LENGTHS,
    "coding": framing.CODINGS,
    "chunk": framing.CHUNKS,
    "continue": framing.CONTINUES,
    "size": heads.SIZES,
    "line": heads.LINES,
    "request line": heads.REQUEST_LINES,
    "host": heads.HOSTS,
    "upgrade": heads.UPGRADES,
    "method": heads.METHODS,
    "pipeline": heads.PIPELINES,
    "path": paths.PATHS,
}

CASES: Table = {f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()}

__all__ = ["CASES", "HOST", "LATER", "MAX_BODY", "TABLES", "Case", "Table"]
