"""Adversarial strings for a regular expression, and a check that a function takes linear time for them.

A ``PumpedText`` makes a string of any size: a prefix, a repeated pump, and a suffix that makes a match fail late.
The texts for a regular expression come from its parse tree. Times are CPU times of the thread, so that other programs
on the machine do not change them.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from re import _constants as sre  # type: ignore[attr-defined]  # no other module names the nodes of a parse
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

KIB = 1024
SIZES = (16 * KIB, 32 * KIB, 64 * KIB)
RATIO_MAX = 9.0
"""The limit on the ratio of the times for a size and for a quarter of it: linear time gives 4, quadratic time 16."""
FLOOR_SECONDS = 0.004
"""The time for 64 KiB below which no ratio is computed, since it would be too inexact."""
STALL_SECONDS = 0.5
"""The limit on the time for 64 KiB. It is generous, because the test checks the growth. ``make bench-stalls`` measures
the real bound of 20 ms, on a machine that does nothing else."""
_STEP_SECONDS = 0.05
"""The limit on the time for sizes up to 4 KiB."""
_FIRST_SIZE, _SCANNED_SIZE, _LAST_SIZE = 16, KIB, 4 * KIB
"""All texts are measured up to 1 KiB, and the slowest of them up to 4 KiB: quadratic time shows in both."""
_DOUBLING_SECONDS = 20e-6
"""The time below which the size may be doubled: even with exponential growth the next time is short enough."""
_SUSPECT_SECONDS, _SUSPECT_SIZES = 0.00025, (4 * KIB, 8 * KIB, 16 * KIB)
"""The time for 1 KiB above which the growth is checked at once, before further texts take as long."""

_ROUNDS = 25
"""How often a growth that looks superlinear is measured before it is reported."""

_ATOMS_MAX, _PAIRED_MAX, _SLOWER, _SLOWEST = 10, 24, 20, 5
_KILLERS = ("", "\x00", "!", "\n")


class PumpedText(NamedTuple):
    """A generator of strings: the prefix, the repeated pump and the suffix."""

    prefix: str
    pump: str
    suffix: str

    def text(self, size: int) -> str:
        """Return the string with about ``size`` characters."""
        repeats = max(1, (size - len(self.prefix) - len(self.suffix)) // len(self.pump))
        return f"{self.prefix}{self.pump * repeats}{self.suffix}"

    def data(self, size: int) -> bytes:
        """Return the string as Latin-1, or as UTF-8 if it has other characters."""
        text = self.text(size)
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")


class SuperLinearError(AssertionError):
    """A function takes more than linear time, or longer than the limits allow."""


def texts_of_pattern(pattern: re.Pattern[Any]) -> list[PumpedText]:
    """Return texts that could make ``pattern`` backtrack: pumps from its characters, literals and repeats."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    tree = _parser.parse(source, flags & ~re.DEBUG if isinstance(pattern.pattern, str) else flags | re.ASCII)
    groups: dict[int, str] = {}
    pumps: list[tuple[str, str]] = []
    whole = _sample(tree, groups, "", pumps)
    pieces = [*dict.fromkeys(piece for piece in _literals(tree) if len(piece) > 1)][:_ATOMS_MAX]
    characters = [*dict.fromkeys(_characters(tree))][:_ATOMS_MAX]
    bodies = [*dict.fromkeys(body for _, body in pumps)][:_ATOMS_MAX]
    prefixes = [*dict.fromkeys(prefix for prefix, _ in pumps)][:_ATOMS_MAX]
    atoms = [*dict.fromkeys(atom for atom in (*characters, *pieces, *bodies, *prefixes, whole) if atom)][:_PAIRED_MAX]
    doubles = [*atoms, *(left + right for left, right in product(atoms, atoms))]
    texts = [PumpedText("", pump, killer) for pump in doubles for killer in ("", "\x00")]
    for prefix, body in dict.fromkeys(pumps):
        for pump in dict.fromkeys((body, *characters)):
            texts += [PumpedText(prefix, pump, killer) for killer in dict.fromkeys((*_KILLERS, *characters))]
    return [*dict.fromkeys(pumped for pumped in texts if pumped.pump)]


def texts_of_atoms(
    atoms: Iterable[str], prefixes: Sequence[str] = ("",), suffixes: Sequence[str] = ("",)
) -> list[PumpedText]:
    """Return texts with the given pumps: each one alone, and each pair of them."""
    atoms = [*dict.fromkeys(atoms)]
    pumps = [*atoms, *(left + right for left, right in product(atoms, atoms) if left != right)]
    return [PumpedText(prefix, pump, suffix) for prefix in prefixes for pump in pumps for suffix in suffixes]


def slowest_texts(function: Callable[[Any], object], texts: Iterable[PumpedText], *, binary: bool) -> list[PumpedText]:
    """Return the texts for which ``function`` takes longest at 4 KiB, of those for which it takes longest at 1 KiB.

    Raises:
        SuperLinearError: a text takes too long, or the time grows more than linearly from a text of 4 KiB on.
    """
    timed: list[tuple[float, PumpedText]] = []
    suspect = _SUSPECT_SECONDS
    for pumped in texts:
        taken = _seconds_up_to(_SCANNED_SIZE, function, pumped, binary)
        if taken > suspect:
            _check_text(function, pumped, binary, _SUSPECT_SIZES)
            suspect = 1.5 * taken
        timed.append((taken, pumped))
    slower = _slowest(timed, _SLOWER)
    return _slowest([(_seconds_up_to(_LAST_SIZE, function, pumped, binary), pumped) for pumped in slower], _SLOWEST)


def _slowest(timed: Iterable[tuple[float, PumpedText]], count: int) -> list[PumpedText]:
    return [pumped for _, pumped in sorted(timed, key=lambda each: each[0], reverse=True)[:count]]


def _seconds_up_to(last: int, function: Callable[[Any], object], pumped: PumpedText, binary: bool) -> float:
    """Return the time for the size ``last``, after smaller sizes that must not take too long.

    The size doubles if the next time is at most ``_STEP_SECONDS`` even with exponential growth, extrapolated from the
    last two times. Otherwise the size grows by a quarter.

    Raises:
        SuperLinearError: a size takes longer than ``_STEP_SECONDS``.
    """
    size, before, growth = _FIRST_SIZE, 0.0, 1.0
    while True:
        taken = seconds_of(function, pumped, size, binary=binary)
        if taken > _STEP_SECONDS and _again(taken, function, pumped, size, binary) > _STEP_SECONDS:
            raise SuperLinearError(f"{size} characters take {taken * 1000:.0f} ms: {pumped}")
        if size == last:
            return taken
        # If the time is exponential and grew by g from size s/f to s, it grows by g ** (f / (f - 1)) from s to 2s.
        power = growth / (growth - 1) if growth > 1 else 0.0
        doubled = taken * max(taken / before, 1.0) ** power if before else _STEP_SECONDS + 1
        growth = 2.0 if taken < _DOUBLING_SECONDS or doubled < _STEP_SECONDS else 1.25
        before, size = taken, min(int(size * growth), last)


def check_linear(function: Callable[[Any], object], texts: Iterable[PumpedText], *, binary: bool) -> None:
    """Check that ``function`` takes linear time for each of ``texts``, and at most STALL_SECONDS for 64 KiB.

    An exception of the function counts as a normal result.

    Args:
        binary: whether the function takes bytes.

    Raises:
        SuperLinearError: the function takes longer.
    """
    with _without_collections():
        for pumped in slowest_texts(function, texts, binary=binary):
            _check_text(function, pumped, binary, SIZES)


def _check_text(
    function: Callable[[Any], object], pumped: PumpedText, binary: bool, sizes: tuple[int, int, int]
) -> None:
    """Check the growth of the time over three sizes; the last one is four times the first."""
    taken: list[float] = []
    for size in sizes:
        seconds = seconds_of(function, pumped, size, binary=binary)
        if seconds > STALL_SECONDS:
            seconds = _again(seconds, function, pumped, size, binary)
        if seconds > STALL_SECONDS:
            raise SuperLinearError(f"{size // KIB} KiB take {seconds * 1000:.1f} ms: {pumped}")
        taken.append(seconds)
    small, middle, large = taken
    if large > FLOOR_SECONDS and max(middle, large) > RATIO_MAX * small:
        _check_growth(function, pumped, binary, sizes[0], sizes[-1])


def _check_growth(
    function: Callable[[Any], object], pumped: PumpedText, binary: bool, small_size: int, large_size: int
) -> None:
    """Measure both sizes in turn until their shortest times are in a linear ratio, at most ``_ROUNDS`` times.

    In turn, because a disturbance that lasts some milliseconds (page faults of an input that needs more memory, a busy
    sibling of the core) must not meet the large size only.

    Raises:
        SuperLinearError: the ratio of the shortest times is above RATIO_MAX after all rounds.
    """
    small = large = math.inf
    for _ in range(_ROUNDS):
        small = min(small, seconds_of(function, pumped, small_size, binary=binary))
        large = min(large, seconds_of(function, pumped, large_size, binary=binary))
        if large <= RATIO_MAX * small:
            return
        if large > 2 * STALL_SECONDS:
            break  # far from linear; do not measure it for seconds
    raise SuperLinearError(
        f"{small_size // KIB} KiB {small * 1000:.1f} ms and {large_size // KIB} KiB {large * 1000:.1f} ms: {pumped}"
    )


@contextmanager
def _without_collections() -> Iterator[None]:
    """Turn the garbage collector off, because its time would be added to that of a function."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _again(taken: float, function: Callable[[Any], object], pumped: PumpedText, size: int, binary: bool) -> float:
    """Measure three more times and return the shortest time; a very long time is not measured again."""
    if taken > 2 * STALL_SECONDS:
        return taken
    return min(seconds_of(function, pumped, size, binary=binary) for _ in range(3))


def seconds_of(function: Callable[[Any], object], pumped: PumpedText, size: int, *, binary: bool) -> float:
    """Return the CPU time of one call."""
    given = pumped.data(size) if binary else pumped.text(size)
    started = time.thread_time()
    with suppress(Exception):  # an input that the function refuses counts too
        function(given)
    return time.thread_time() - started


# The walk over a parse tree of re._parser, whose nodes are pairs (opcode, argument).


def _sample(nodes: Iterable[Any], groups: dict[int, str], before: str, pumps: list[tuple[str, str]]) -> str:
    """Return a string that the nodes should match; add each large repeat, with the string before it, to ``pumps``."""
    made = ""
    for opcode, argument in nodes:
        if opcode in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY):
            made += next(iter(_node_characters(opcode, argument)), "a")
        elif opcode in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            least, most, body = argument
            sample = _sample(body, groups, before + made, pumps)
            if most > 8 and sample:
                pumps.append((before + made, sample))
            made += sample * max(int(least), 1)
        elif opcode is sre.SUBPATTERN:
            number, _, _, body = argument
            sample = _sample(body, groups, before + made, pumps)
            if number is not None:
                groups[number] = sample
            made += sample
        elif opcode is sre.ATOMIC_GROUP:
            made += _sample(argument, groups, before + made, pumps)
        elif opcode is sre.BRANCH:
            samples = [_sample(branch, groups, before + made, pumps) for branch in argument[1]]
            made += next(filter(None, samples), "")
        elif opcode is sre.GROUPREF:
            made += groups.get(argument, "")
        elif (opcode is sre.ASSERT and argument[0] > 0) or (opcode is sre.ASSERT_NOT and argument[0] > 0):
            _sample(argument[1], groups, before + made, pumps)
    return made


def _children(opcode: Any, argument: Any) -> Iterator[Any]:
    if opcode in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        yield argument[2]
    elif opcode is sre.SUBPATTERN:
        yield argument[3]
    elif opcode is sre.ATOMIC_GROUP:
        yield argument
    elif opcode is sre.BRANCH:
        yield from argument[1]
    elif opcode in (sre.ASSERT, sre.ASSERT_NOT):
        yield argument[1]


def _literals(nodes: Iterable[Any]) -> Iterator[str]:
    """The runs of literal characters."""
    run = ""
    for opcode, argument in nodes:
        if opcode is sre.LITERAL:
            run += chr(argument)
            continue
        if run:
            yield run
        run = ""
        for child in _children(opcode, argument):
            yield from _literals(child)
    if run:
        yield run


def _characters(nodes: Iterable[Any]) -> Iterator[str]:
    """The characters that the nodes distinguish: some of each class, and each literal character."""
    for opcode, argument in nodes:
        yield from _node_characters(opcode, argument)
        for child in _children(opcode, argument):
            yield from _characters(child)


_CATEGORIES = {
    sre.CATEGORY_DIGIT: "0",
    sre.CATEGORY_NOT_DIGIT: "a",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_NOT_SPACE: "a",
    sre.CATEGORY_WORD: "a",
    sre.CATEGORY_NOT_WORD: " ",
}
_TRIED = "a0 ./:-_\"'\\,;=&{}[]()<>%\r\n\té"


def _node_characters(opcode: Any, argument: Any) -> Iterator[str]:
    if opcode is sre.LITERAL:
        yield chr(argument)
    elif opcode is sre.ANY:
        yield "a"
    elif opcode is sre.NOT_LITERAL:
        yield "a" if argument != ord("a") else "b"
    elif opcode is sre.IN:
        if argument[0][0] is sre.NEGATE:
            yield from [character for character in _TRIED if not _is_in(character, argument[1:])][:3]
            return
        if _is_in("a", argument):
            yield "a"
        for kind, value in argument:
            if kind is sre.LITERAL:
                yield chr(value)
            elif kind is sre.RANGE:
                yield chr(value[1])
            elif kind is sre.CATEGORY:
                yield _CATEGORIES[value]


def _is_in(character: str, members: Iterable[Any]) -> bool:
    code = ord(character)
    for kind, value in members:
        if kind is sre.LITERAL and value == code:
            return True
        if kind is sre.RANGE and value[0] <= code <= value[1]:
            return True
        if kind is sre.CATEGORY and _category_has(value, character):
            return True
    return False


def _category_has(category: Any, character: str) -> bool:
    if category in (sre.CATEGORY_DIGIT, sre.CATEGORY_NOT_DIGIT):
        return character.isdigit() is (category is sre.CATEGORY_DIGIT)
    if category in (sre.CATEGORY_SPACE, sre.CATEGORY_NOT_SPACE):
        return character.isspace() is (category is sre.CATEGORY_SPACE)
    word = character.isalnum() or character == "_"
    return word is (category is sre.CATEGORY_WORD)
