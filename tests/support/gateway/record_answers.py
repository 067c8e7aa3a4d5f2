"""Write what the present code answers to the recorded cases: ``python -m tests.support.gateway.record_answers``.

A change of behaviour that is wanted is made in the code; this command writes it to ``answers/recorded.json``, and the
difference of that file is reviewed as a part of the change. A difference that is not wanted is a mistake of the code:
``tests/unit/gateway/test_same_answers.py`` shows it for each way to ask.
"""

from __future__ import annotations

from .answers.recorded import FILE, record

if __name__ == "__main__":
    FILE.write_text(record(), encoding="utf-8")
