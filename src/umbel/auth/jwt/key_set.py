"""The keys with which the tokens of one issuer are verified, from a JSON Web Key Set (RFC 7517) or from PEM.

Theory
------
**Problem.** Whoever can choose the key, or the algorithm for a key, can sign tokens. A public key is known to anybody,
so as the secret of an HMAC it would verify the token of anybody ("algorithm confusion", RFC 8725 section 2.1).

**Which algorithms a key verifies** is decided when the key is read, and never by a token: those of the configuration
that fit the key's type and curve; if the key has an ``alg``, only that one. A key that fits none is left out. So a
token's ``alg`` only selects among keys that are made for it.

**Which keys are left out**: those for encryption (``use``, ``key_ops``), those with an unknown type or curve, RSA keys
of less than 2048 bits, secrets shorter than the hash of their algorithm (RFC 7518 section 3.2), every secret in a set
that came over the network, and every key whose private part is there: who can read the set can sign tokens. A key with
a mistake is left out alone, because one that is not understood must not spoil the others (RFC 7517 section 5). Each
one has a reason, as one sentence without anything of the key but its place.

**Which keys are tried for a token**: those with its ``kid``; if there are none, those without a ``kid`` (as PEM has
none); for a token without ``kid`` all. Of these, those that verify its algorithm, at most KEYS_TRIED_MAX.

Validity dates of certificates are not looked at: a certificate in a file is only a form of its public key.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...composition.decode import BadBodyError, decode_json
from .base64url import decode_canonical
from .library import KEY_OF, KeyRule, algorithm_models

if TYPE_CHECKING:
    from joserfc.jwk import Key

SIZE_MAX = 256 * 1024
"""The most bytes of a key set, or of a file of keys."""
KEYS_MAX = 100
"""The most keys of a set."""
KEYS_TRIED_MAX = 10
"""The most keys that are tried for one token."""
RSA_BITS = (2048, 8192)
"""The least and the most bits of an RSA key. The cost of a verification grows with the square of the bits."""

_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""The members of a key that are kept, by type."""
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth")
_KEY_OPS_SIZE_MAX = 20

# The content ends at the first five hyphens, so that a text with many BEGIN lines takes linear time.
_PEM = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,40}+)-----(?:[^-]++|-(?!----))++-----END \1-----",
)
_PEM_PUBLIC = (b"PUBLIC KEY", b"RSA PUBLIC KEY")


class BadKeySetError(Exception):
    """A text is no key set, or has no usable key. The message is a part of a sentence, without content of the text."""


class _BadKeyError(Exception):
    """A key cannot be used. The message is a part of a sentence."""


class VerificationKey:
    """A key and the algorithms that it verifies. Neither ``repr`` nor ``str`` shows anything of the key."""

    __slots__ = ("_key", "_models", "_signature_size", "algorithms", "key_id", "public")

    def __init__(self, key: Key, key_id: str | None, algorithms: Collection[str], public: tuple[str, ...]) -> None:
        from joserfc.jwk import RSAKey

        self._key = key
        self._models = {name: algorithm_models()[name] for name in algorithms}
        # RFC 8017 sections 8.1.2 and 8.2.2. OpenSSL also takes an RSASSA-PSS signature whose leading zero bytes are
        # missing, so that one signature would have several forms.
        self._signature_size = (key.public_key.key_size + 7) // 8 if isinstance(key, RSAKey) else None
        self.key_id = key_id
        self.algorithms = frozenset(algorithms)
        self.public = public
        """The members that make two keys equal; of a secret only its type."""

    def verifies(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is that of ``signing_input`` by this key. Never raises.

        Args:
            algorithm: one of ``algorithms``; with another one the result is False.
        """
        model = self._models.get(algorithm)
        if model is None or (self._signature_size is not None and len(signature) != self._signature_size):
            return False
        try:
            return model.verify(signing_input, signature, self._key)
        except Exception:  # noqa: BLE001  # whatever a library raises for hostile input, the signature is not verified
            return False


class KeySet:
    """The usable keys of an issuer. Immutable: a changed set is another object."""

    def __init__(self, keys: Sequence[VerificationKey], left_out: Sequence[str] = ()) -> None:
        self.keys = tuple(keys)
        self.left_out = tuple(left_out)
        """Why keys are left out, one sentence for each."""
        self._by_id: dict[str | None, list[VerificationKey]] = {}
        for key in self.keys:
            self._by_id.setdefault(key.key_id, []).append(key)

    def has(self, key_id: str | None) -> bool:
        """Whether a key has this id; True for None."""
        return key_id is None or key_id in self._by_id

    def candidates(self, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        """The keys that are tried for a token with this ``kid`` (None: it has none) and algorithm; see the module."""
        keys: Sequence[VerificationKey] = self.keys
        if key_id is not None:
            keys = self._by_id.get(key_id) or self._by_id.get(None) or ()
        return [key for key in keys if algorithm in key.algorithms][:KEYS_TRIED_MAX]

    def equals(self, other: KeySet | None) -> bool:
        """Whether the other set has the same keys with the same ids and algorithms."""
        return other is not None and _identities(self) == _identities(other)


def _identities(keys: KeySet) -> list[tuple[str | None, frozenset[str], tuple[str, ...]]]:
    return [(key.key_id, key.algorithms, key.public) for key in keys.keys]


def read_key_set(content: bytes, algorithms: Collection[str], *, remote: bool) -> KeySet:
    """Read a key set: a JSON Web Key Set, or if it is not ``remote`` also PEM.

    Args:
        content: the text.
        algorithms: the algorithms of the configuration.
        remote: whether the set came over the network, so that it must not hold secrets.

    Raises:
        BadKeySetError: the content is too large, is no key set, or has no usable key.
        ImportError: the library is not installed.
    """
    if len(content) > SIZE_MAX:
        raise BadKeySetError(f"is larger than {SIZE_MAX // 1024} KiB")
    if not remote and b"-----BEGIN " in content:
        parts: Iterator[_Part] = _pem_parts(content)
    else:
        parts = _jwks_parts(content)
    keys: list[VerificationKey] = []
    left_out: list[str] = []
    for part in parts:
        try:
            keys.append(_key_of(part, algorithms, remote=remote))
        except _BadKeyError as error:
            left_out.append(f"{part.name} is left out: {error}.")
    if not keys:
        raise BadKeySetError(f"has no usable key{': ' if left_out else ''}{' '.join(left_out[:5])}".rstrip("."))
    return KeySet(keys, left_out)


class _Part(NamedTuple):
    """A key of a text: as members of a JSON Web Key, or as PEM with its label."""

    name: str
    """Where the key is, for messages."""
    members: Any
    label: bytes = b""
    pem: bytes = b""


def _jwks_parts(content: bytes) -> Iterator[_Part]:
    try:
        value = decode_json(content)
    except BadBodyError:
        raise BadKeySetError("is neither a JSON Web Key Set nor PEM") from None
    members = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(members, list):
        raise BadKeySetError('is not a JSON Web Key Set: it is no JSON object with a list "keys"')
    if len(members) > KEYS_MAX:
        raise BadKeySetError(f"has more than {KEYS_MAX} keys")
    return (_Part(f"key {number}", each) for number, each in enumerate(members, 1))


def _pem_parts(content: bytes) -> Iterator[_Part]:
    blocks = list(_PEM.finditer(content))
    if len(blocks) > KEYS_MAX:
        raise BadKeySetError(f"has more than {KEYS_MAX} keys")
    if not blocks:
        raise BadKeySetError("has no complete block of PEM")
    return (_Part(f"block {number}", {}, block[1], block[0]) for number, block in enumerate(blocks, 1))


def _key_of(part: _Part, algorithms: Collection[str], *, remote: bool) -> VerificationKey:
    members = _members_of_pem(part) if part.pem else part.members
    kty = _check_members(members, remote=remote)
    own = members.get("alg")
    fitting = [name for name in algorithms if _fits(KEY_OF[name], members, kty)]
    if not fitting:
        raise _BadKeyError("its type or curve fits none of the algorithms")
    if own is not None:
        if own not in fitting:
            raise _BadKeyError('its "alg" is none of the algorithms, or does not fit its type')
        fitting = [own]
    if kty == "oct":
        size = len(_secret(members))
        fitting = [name for name in fitting if size >= KEY_OF[name].secret_bytes]
        if not fitting:
            raise _BadKeyError("its secret is shorter than the hash of its algorithm")
    kept = {name: members[name] for name in _MEMBERS[kty]}
    return VerificationKey(_imported(kty, kept), members.get("kid"), fitting, _public(kty, kept))


def _check_members(members: Any, *, remote: bool) -> str:
    """Check the members of a key that have a meaning for every type, and return the type."""
    if not isinstance(members, dict):
        raise _BadKeyError("it is no JSON object")
    kty, use, operations = members.get("kty"), members.get("use"), members.get("key_ops")
    if not isinstance(kty, str) or kty not in _MEMBERS:
        raise _BadKeyError("its type is unknown")
    if use is not None and use != "sig":
        raise _BadKeyError('its "use" is not "sig"')
    if operations is not None and not (
        isinstance(operations, list) and len(operations) <= _KEY_OPS_SIZE_MAX and "verify" in operations
    ):
        raise _BadKeyError('its "key_ops" do not have "verify"')
    if remote and kty == "oct":
        raise _BadKeyError("it is a secret, which no key set should publish")
    if any(name in members for name in _PRIVATE):
        raise _BadKeyError("its private part is there, so whoever reads it can sign tokens; publish only public keys")
    for name in ("kid", "alg"):
        if members.get(name) is not None and not isinstance(members[name], str):
            raise _BadKeyError(f'its "{name}" is not a text')
    for name in _MEMBERS[kty]:
        if not isinstance(members.get(name), str):
            raise _BadKeyError(f'it has no text "{name}"')
    return kty


def _fits(rule: KeyRule, members: dict[str, Any], kty: str) -> bool:
    return rule.kty == kty and (not rule.curves or members["crv"] in rule.curves)


def _secret(members: dict[str, Any]) -> bytes:
    try:
        return decode_canonical(members["k"].encode("ascii"))
    except ValueError:
        raise _BadKeyError('its "k" is not base64url') from None


def _public(kty: str, kept: dict[str, str]) -> tuple[str, ...]:
    return (kty,) if kty == "oct" else (kty, *kept.values())


def _imported(kty: str, kept: dict[str, str]) -> Key:
    """Make the library's key of members that are texts. The library checks points and exponents."""
    from joserfc.jwk import import_key

    if kty == "RSA":
        try:
            bits = int.from_bytes(decode_canonical(kept["n"].encode("ascii"))).bit_length()
        except ValueError:
            raise _BadKeyError('its "n" is not base64url') from None
        if not RSA_BITS[0] <= bits <= RSA_BITS[1]:
            raise _BadKeyError(f"it has {bits} bits; RSA keys must have {RSA_BITS[0]} to {RSA_BITS[1]}")
    try:
        with warnings.catch_warnings():
            # The library warns of weak keys, such as a secret that looks like a public key.
            warnings.simplefilter("error")
            return import_key({"kty": kty, **kept})
    except Exception:  # noqa: BLE001  # the library and OpenSSL raise many types; all mean that the key is unusable
        raise _BadKeyError("it is not valid") from None


def _members_of_pem(part: _Part) -> dict[str, Any]:
    """The public members of a key in PEM."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    if b"PRIVATE" in part.label:
        raise _BadKeyError("it is a private key; write only the public one")
    if part.label not in (*_PEM_PUBLIC, b"CERTIFICATE"):
        raise _BadKeyError("it is neither a public key nor a certificate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of weak keys, which are left out later with a reason.
        for kind in (RSAKey, ECKey, OKPKey):
            try:
                return {**kind.import_key(part.pem).as_dict(private=False), "kty": kind.key_type}
            except Exception:  # noqa: BLE001  # many types: another kind of key, a bad one, an unknown curve
                continue
    raise _BadKeyError("it is not valid, or its type or curve is unknown")
