"""Record the answers of the present code: ``python -m tests.support.gateway.record_answers``.

The command writes ``answers/recorded.json``. Run it after an intended change of behaviour, and review the difference of
the file as part of the change. An unintended difference is a bug; ``tests/unit/gateway/test_same_answers.py`` shows it.
"""

from __future__ import annotations

from .answers.recorded import FILE, record

if __name__ == "__main__":
    FILE.write_text(record(), encoding="utf-8")
