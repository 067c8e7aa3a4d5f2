from __future__ import annotations

from umbel.net.exception_groups import leaves


def test_the_leaves_of_nested_groups_come_in_order_and_one_that_is_no_group_is_its_own() -> None:
    a, b, c = ValueError("a"), KeyError("b"), GeneratorExit()
    group = BaseExceptionGroup("", [a, ExceptionGroup("", [b]), c])
    assert list(leaves(group)) == [a, b, c]
    assert list(leaves(a)) == [a]


def test_a_group_that_is_deeper_than_pythons_stack_is_taken_apart() -> None:
    error: Exception = ValueError("deep")
    for _ in range(50_000):
        error = ExceptionGroup("", [error])
    assert [str(leaf) for leaf in leaves(error)] == ["deep"]
