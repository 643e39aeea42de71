"""Keys on a PKCS#11 token: one HMAC is asked of the token, and the key stays where it is.

Does not read PINs (keys.py does) and makes no keys: the hospital's own tools do, for example
`pkcs11-tool --keygen --key-type generic:32 --usage-sign --label NAME`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH = ("token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Address:
    """Which key on which token, and where library and PIN lie."""

    module: str
    pin_file: str
    token: str
    label: str | None
    id: bytes | None
    serial: bytes | None = None
    slot: int | None = None


def parse(address: str) -> Address:
    """Return what a PKCS#11 URI says, without its scheme.

    Raises: ConfigurationError naming the attribute that is unknown, missing, given twice or not served.
    Source: RFC 7512 section 2.3. `pin-value` is refused: a secret is named by reference.
    """
    path, _, query = address.partition("?")
    given = _attributes(path.split(";"), _PATH) | _attributes(query.split("&") if query else [], _QUERY)
    for needed in ("token", *_QUERY):
        if not given.get(needed):
            raise ConfigurationError(f"pkcs11: {needed} is missing")
    if not given.keys() & {"object", "id"}:
        raise ConfigurationError("pkcs11: object or id is missing")
    if given.get("type", b"secret-key") != b"secret-key":
        raise ConfigurationError("pkcs11: type must be secret-key")
    pin = _text(given, "pin-source")
    if not pin.startswith("file:"):
        raise ConfigurationError("pkcs11: pin-source must be a file: reference")
    slot = _text(given, "slot-id") if "slot-id" in given else None
    if slot is not None and not slot.isdecimal():
        raise ConfigurationError("pkcs11: slot-id must be a number")
    return Address(
        module=_text(given, "module-path"),
        pin_file=pin.removeprefix("file:"),
        token=_text(given, "token"),
        label=_text(given, "object") if "object" in given else None,
        id=given.get("id"),
        serial=given.get("serial"),
        slot=int(slot) if slot is not None else None,
    )


def derive(where: Address, pin: str, use: str) -> bytes:
    """Return the 32 bytes that the token's key gives for `use`.

    Raises: ConfigurationError if module, token, PIN or key are not what was named, or the key makes no HMAC.
    Source: PKCS#11 v2.40 CKM_SHA256_HMAC; as the expand step of HKDF (RFC 5869 section 2.3) with `use` as its info.
    """
    with _key(where, pin, writing=False) as key:
        from pkcs11 import Mechanism  # noqa: PLC0415 -- installed where a token is used

        if key is None:
            raise ConfigurationError("pkcs11: the token has no such key")
        return bytes(key.sign(f"filmroom/{use}\x01".encode(), mechanism=Mechanism.SHA256_HMAC))


def destroy(where: Address, pin: str) -> None:
    """Destroy the key on the token; nothing happens if it is gone.

    Raises: ConfigurationError if the token does not let it be destroyed.
    """
    with _key(where, pin, writing=True) as key:
        if key is not None:
            key.destroy()


@contextmanager
def _key(
    where: Address, pin: str, *, writing: bool
) -> Iterator[Any]:  # the key, or None; the library is installed where a token is used
    try:
        import pkcs11  # noqa: PLC0415 -- installed where a token is used
    except ImportError as error:
        raise ConfigurationError("pkcs11: needs filmroom[pkcs11], which is not installed") from error
    try:
        library = pkcs11.lib(where.module)
        slots = [slot for slot in library.get_slots(token_present=True) if _is_meant(slot.get_token(), slot, where)]
        if len(slots) != 1:
            raise ConfigurationError(f"pkcs11: {len(slots)} tokens answer to the reference, not one")
        with slots[0].get_token().open(rw=writing, user_pin=pin) as session:
            try:
                key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=where.label, id=where.id)
            except pkcs11.NoSuchKey:
                key = None
            yield key
    except pkcs11.PKCS11Error as error:
        # The class says it (PinIncorrect, KeyFunctionNotPermitted); a text could quote what was sent.
        raise ConfigurationError(f"pkcs11: {type(error).__name__}") from error


def _is_meant(token: object, slot: object, where: Address) -> bool:
    return (
        getattr(token, "label", None) == where.token
        and (where.serial is None or getattr(token, "serial", None) == where.serial)
        and (where.slot is None or getattr(slot, "slot_id", None) == where.slot)
    )


def _attributes(parts: list[str], known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise ConfigurationError("pkcs11: an attribute is not served; known are " + ", ".join(known))
        if name in found:
            raise ConfigurationError(f"pkcs11: {name} is given twice")
        found[name] = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), value.encode())
    return found


def _text(given: dict[str, bytes], name: str) -> str:
    try:
        return given[name].decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"pkcs11: {name} is not UTF-8") from error
