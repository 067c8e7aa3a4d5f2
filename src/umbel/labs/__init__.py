"""Labs: twelve short lessons in structured concurrency, each one story in three forms on one time axis.

``umbel lab`` lists and runs them. A lab is a folder here: its module holds a ``Lab`` (question, answer, explanation,
expected results), beside it stand the programs: one with ``asyncio.gather`` or ``create_task``, one with
``asyncio.TaskGroup``, one with a trio nursery. The programs need nothing but Umbel's own dependencies.

What is measured, and how
-------------------------
- Each program runs in a fresh interpreter (``child.py``): those of asyncio on asyncio's own event loop, those of trio
  on trio's. Nothing of either library is replaced, except the clock; ``asyncio.timeout`` and ``asyncio.wait_for`` are
  wrapped, so that their deadlines are noted.
- A program marks its work by ``with bar("name"):`` (``kit.py``). A bar records when the block was entered and left, by
  which exception, and at which source line. It does not change what the block does.
- Where a bar waits is looked up in the frames of its task, each time that the event loop is about to wait.
- Times are virtual: when all tasks wait, the clock jumps to the next timer (``on_asyncio.py``; trio's ``MockClock``).
  So a lab of ten seconds takes a moment, and has the same figures each time. A lab that says so runs in real time.
- A process runs until the ``horizon`` of its lab, as the event loop of a server runs on after a request. A bar that is
  still open then is still running. With ``ends`` it ends with its program instead.
"""
