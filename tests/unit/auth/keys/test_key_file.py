"""The file of API keys: what it may hold, and its mistakes."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from umbel.auth.keys.key_file import ID_MAX, MISTAKES_MAX, SIZE_MAX, ApiKey, KeyFileError, read_key_file

A, B = "0a" * 32, "0b" * 32
TABLE = f'[[keys]]\nid = "a"\nsha256 = "{A}"\n'
NEXT = f'[[keys]]\nid = "b"\nsha256 = "{B}"\n'
NEEDS_DIGEST = 'needs the SHA-256 of the key, 64 hexadecimal digits, in sha256; "umbel auth hash" prints it'
NEEDS_ID = f"needs a text of at most {ID_MAX} printable characters, without spaces around it"
NEEDS_SCOPES = "needs a list of scopes: texts of printable ASCII without spaces, quotes and backslashes"
NEEDS_TIME = "needs a date or a time without quotes, such as 2027-01-31 or 2027-01-31T12:00:00Z"


def file_with(directory: Path, text: str | bytes) -> str:
    path = directory / "keys.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def mistakes(directory: Path, text: str | bytes) -> list[str]:
    with pytest.raises(KeyFileError) as caught:
        read_key_file(file_with(directory, text))
    return [str(each) for each in caught.value.mistakes]


def test_keys_are_read_with_their_scopes_and_times(tmp_path: Path) -> None:
    more = 'scopes = ["x:read", "y", "x:read"]\nexpires = 1970-01-02\n'
    upper = NEXT.replace(B, B.upper()) + "expires = 1970-01-01T01:00:00+01:00\n"
    local = f'[[keys]]\nid = "née c"\nsha256 = "{"0c" * 32}"\nexpires = 1970-01-01T00:00:01\n'
    assert read_key_file(file_with(tmp_path, TABLE + more + upper + local)).keys == (
        ApiKey("a", bytes.fromhex(A), ("x:read", "y"), 86400.0),
        ApiKey("b", bytes.fromhex(B), (), 0.0),
        ApiKey("née c", b"\x0c" * 32, (), 1.0),
    )


def test_two_keys_may_have_one_id_so_that_a_key_can_be_replaced(tmp_path: Path) -> None:
    keys = read_key_file(file_with(tmp_path, TABLE + "expires = 1970-01-02\n" + NEXT.replace('"b"', '"a"'))).keys
    assert [(key.id, key.digest.hex(), key.expires) for key in keys] == [("a", A, 86400.0), ("a", B, None)]


def test_an_empty_list_of_keys_is_no_mistake_and_an_empty_file_is_one(tmp_path: Path) -> None:
    assert read_key_file(file_with(tmp_path, "keys = []\n")).keys == ()
    assert mistakes(tmp_path, "") == ["has no table [[keys]]; to let nobody in, write keys = []"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[keys]\n", ["1: keys: needs a list of tables: write [[keys]], with two brackets"]),
        ("keys = [3]\n", ["1: keys[0]: needs a table with id and sha256"]),
        ("[[keys]]\n", ["1: keys[0]: has no id", f"1: keys[0]: {NEEDS_DIGEST}"]),
        (TABLE + "expire = 1\n", ['4: keys[0]: has a member that is none of id, sha256, scopes, expires; did you mean "expires"?']),
        (TABLE + "expires = 1\n", [f"4: keys[0].expires: {NEEDS_TIME}"]),
        (TABLE + "expires = 12:00:00\n", [f"4: keys[0].expires: {NEEDS_TIME}"]),
        (TABLE + 'scopes = "a"\n', [f"4: keys[0].scopes: {NEEDS_SCOPES}"]),
        (TABLE + 'scopes = ["a b"]\n', [f"4: keys[0].scopes: {NEEDS_SCOPES}"]),
        (TABLE.replace(A, A[1:]), [f"3: keys[0].sha256: {NEEDS_DIGEST}"]),
        (TABLE.replace('"a"', '" a"'), [f"2: keys[0].id: {NEEDS_ID}"]),
        (TABLE.replace('"a"', f'"{"a" * 65}"'), [f"2: keys[0].id: {NEEDS_ID}"]),
        (TABLE.replace('"a"', r'"a\n"'), [f"2: keys[0].id: {NEEDS_ID}"]),
        (TABLE + NEXT.replace(B, A.upper()), ["6: keys[1].sha256: is the digest of the table in line 3 already; each has its own"]),
        (TABLE + "[other]\n", ["4: has a key that is not known here: there are tables [[keys]] only"]),
    ],
)  # fmt: skip
def test_a_mistake_has_its_line(text: str, lines: list[str], tmp_path: Path) -> None:
    assert mistakes(tmp_path, text) == lines


def test_all_mistakes_are_found_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "[[keys]]\nid = 3\n" + TABLE + 'scopes = [""]\n[other]\n')
    assert [line.partition(":")[0] for line in found] == ["1", "2", "6", "7"]


def test_a_file_of_mistakes_is_reported_in_part(tmp_path: Path) -> None:
    found = mistakes(tmp_path, TABLE + "[[keys]]\n" * 200)
    assert (len(found), found[-1]) == (MISTAKES_MAX + 1, "has 300 more mistakes")


@pytest.mark.parametrize(
    "text",
    [
        "[[keys]]\nid = uk_secret\n",
        "uk_secret\n",
        "uk_secret = 1\n",
        "[[keys]]\nuk_secret = 1\n",
        "[uk_secret]\n[uk_secret]\n",
        "a = { uk_secret = 1, uk_secret = 1 }\n",
        "uk_secret.a = 1\nuk_secret = 1\n",
        "[[keys]]\nid = '\tuk_secret'\n",
        "[[keys]]\nid = 'a'\nsha256 = 'uk_secret'\n",
        "[[keys]]\nid = 'a'\nscopes = 'uk_secret'\n",
        "[[keys]]\nid = 'a'\nexpires = 'uk_secret'\n",
        "[[keys]]\nid = 'uk_secret'\n[[keys]]\nid = 'uk_secret'\n",
    ],
)
def test_no_message_quotes_what_may_be_a_key(text: str, tmp_path: Path) -> None:
    assert "uk_secret" not in "".join(mistakes(tmp_path, text))


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"^cannot be read: there is no such file$") as caught:
        read_key_file(str(tmp_path / "none.toml"))
    assert caught.value.stamp is None
    with pytest.raises(KeyFileError, match=r"^cannot be read: it is a directory$"):
        read_key_file(str(tmp_path))
    assert mistakes(tmp_path, b"# \xff") == ["1: is not UTF-8 text"]
    assert mistakes(tmp_path, b"a = \n") == ["1: is not TOML, at column 5"]
    assert mistakes(tmp_path, TABLE.encode() + b"#" * SIZE_MAX) == ["is larger than 1MB"]


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    many = "".join(f'[[keys]]\nid = "{number}"\nsha256 = "{number:064}"\n' for number in range(10_000))
    text = many + "#" * (SIZE_MAX - len(many))
    assert len(read_key_file(file_with(tmp_path, text)).keys) == 10_000
