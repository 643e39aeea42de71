"""Numbers that states, insurers and banks give to persons, by shape and check digit.

A shape without punctuation that only one number in ten of any kind fails is not believed by itself: that takes a label
(`labels`) or a known patient. Does not decide where numbers are looked for.

Source: the check rules of NHS numbers (NHS Data Dictionary), KVNR (GKV-Spitzenverband, appendix 1 of section 290
    SGB V), AHV number (EAN-13), NIR (97 - n mod 97), codice fiscale (D.M. 23.12.1976), HETU (mod 31), personnummer
    (Luhn), PESEL, CPF, IBAN (ISO 7064 mod 97-10), DNI (mod 23), MBI (CMS), SSN (SSA: never given groups).
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from site_node.stray.finding import Confidence, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ALWAYS: Callable[[str], bool] = bool


def _digits(text: str) -> list[int]:
    return [int(letter) for letter in text if letter.isdigit()]


def weighted(digits: list[int], weights: tuple[int, ...], modulus: int) -> int:
    """Return the weighted sum of digits modulo `modulus`."""
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=False)) % modulus


def luhn(digits: list[int]) -> bool:
    """Return whether the last digit is that of ISO/IEC 7812-1 annex B."""
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _nhs(text: str) -> bool:
    digits = _digits(text)
    check = 11 - weighted(digits, tuple(range(10, 1, -1)), 11)
    return len(set(digits)) > 1 and check % 11 == digits[9]


def _kvnr(text: str) -> bool:
    digits = [*divmod(ord(text[0].upper()) - ord("A") + 1, 10), *_digits(text[1:])]
    total = sum(sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(digits[:-1]))
    return total % 10 == digits[-1]


def _ean13(text: str) -> bool:
    return weighted(_digits(text), (1, 3) * 6 + (1,), 10) == 0


def _nir(text: str) -> bool:
    plain = re.sub(r"\s", "", text).upper().replace("2A", "19").replace("2B", "18")
    return plain.isdigit() and 97 - int(plain[:13]) % 97 == int(plain[13:])


_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21),
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        ),
        strict=True,
    )
)


def _fiscal(text: str) -> bool:
    upper = text.upper()
    even = sum(int(letter) if letter.isdigit() else ord(letter) - ord("A") for letter in upper[1:15:2])
    return (even + sum(_ODD[letter] for letter in upper[0:15:2])) % 26 == ord(upper[15]) - ord("A")


def _hetu(text: str) -> bool:
    return _is_day(*map(int, (text[4:6], text[2:4], text[:2]))) and (
        "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(text[:6] + text[7:10]) % 31] == text[10].upper()
    )


def _personnummer(text: str) -> bool:
    digits = _digits(text)[-10:]
    year, month, day = (10 * digits[i] + digits[i + 1] for i in (0, 2, 4))
    return _is_day(year, month, day) and luhn(digits)


def _pesel(text: str) -> bool:
    digits = _digits(text)
    month = (10 * digits[2] + digits[3]) % 20
    born = _is_day(10 * digits[0] + digits[1], month, 10 * digits[4] + digits[5])
    return born and (10 - weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), 10)) % 10 == digits[10]


def _cpf(text: str) -> bool:
    digits = _digits(text)
    checks = [10 * weighted(digits, tuple(range(n, 1, -1)), 11) % 11 % 10 for n in (10, 11)]
    return len(set(digits)) > 1 and checks == digits[9:]


def _iban(text: str) -> bool:
    plain = re.sub(r"\s", "", text).upper()
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1  # noqa: PLR2004 -- ISO 13616


def _dni(text: str) -> bool:
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int("".join(map(str, _digits(text)))) % 23] == text[-1].upper()


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(2000 + year, month, day)
    except ValueError:
        return False
    return True


class Shape(NamedTuple):
    """A kind of number: how it is written, and what else has to hold."""

    rule: str
    kind: Kind
    confidence: Confidence
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = _ALWAYS


def _shape(rule: str, confidence: Confidence, pattern: str, holds: Callable[[str], bool] = _ALWAYS) -> Shape:
    return Shape(rule, Kind.IDENTIFIER, confidence, re.compile(rf"(?<![\w.-]){pattern}(?![\w-]|\.\d)"), holds)


_MBI = "[AC-HJKMNP-RT-Y]"
SHAPES = (
    _shape("nhs-number", Confidence.LIKELY, r"\d{3} \d{3} \d{4}", _nhs),
    _shape("ssn", Confidence.POSSIBLE, r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}"),
    _shape("kvnr", Confidence.POSSIBLE, r"[A-Z]\d{9}", _kvnr),
    _shape("ahv-number", Confidence.CERTAIN, r"756([. ])\d{4}\1\d{4}\1\d{2}", _ean13),
    _shape("ahv-number", Confidence.LIKELY, r"756\d{10}", _ean13),
    _shape("nir", Confidence.CERTAIN, r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?(?:\d{2}|2[ABab]) ?\d{3} ?\d{3} ?\d{2}", _nir),
    _shape("codice-fiscale", Confidence.CERTAIN, r"(?i:[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])", _fiscal),
    _shape("hetu", Confidence.CERTAIN, r"\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]", _hetu),
    _shape("personnummer", Confidence.LIKELY, r"(?:19|20)?\d{6}[-+]\d{4}", _personnummer),
    _shape("pesel", Confidence.LIKELY, r"\d{11}", _pesel),
    _shape("cpf", Confidence.CERTAIN, r"\d{3}\.\d{3}\.\d{3}-\d{2}", _cpf),
    _shape("dni", Confidence.POSSIBLE, r"\d{8}-?[TRWAGMYFPDXBNJZSQVHLCKE]", _dni),
    _shape("iban", Confidence.CERTAIN, r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?", _iban),
    _shape(
        "mbi", Confidence.LIKELY, rf"[1-9]{_MBI}[0-9AC-HJKMNP-RT-Y]\d-{_MBI}[0-9AC-HJKMNP-RT-Y]\d-{_MBI}{{2}}\d{{2}}"
    ),
    Shape(
        "telephone",
        Kind.CONTACT,
        Confidence.LIKELY,
        re.compile(r"(?<![\w.+-])(?:\+\d{1,3}[ ./(-]{1,2}\d[\d ()./-]{5,16}\d|\(\d{3}\) ?\d{3}-\d{4})(?![\w.-])"),
        lambda text: 8 <= len(_digits(text)) <= 15,  # noqa: PLR2004 -- ITU-T E.164: 15 at most
    ),
)
# Where one of the shapes stands, found in one pass; letters before the first digit are six at most.
_ANY = re.compile(
    rf"(?<![\w.-])(?=[A-Za-z]{{0,6}}\d|[+(]\d)(?=(?:{'|'.join(shape.pattern.pattern for shape in SHAPES)}))"
)


def shaped(text: str) -> Iterator[tuple[Shape, re.Match[str]]]:
    """Yield what has the shape of a number and holds as one; none of a shape overlaps another of it."""
    starts = [match.start() for match in _ANY.finditer(text)]
    for shape in SHAPES if starts else ():
        end = 0
        for start in starts:
            if start >= end and (match := shape.pattern.match(text, start)):
                end = match.end()
                if shape.holds(match[0]):
                    yield shape, match
