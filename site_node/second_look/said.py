"""What an original says of persons, places, days and machines, and the forms it can take in an output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from site_node.second_look.folding import fold
from site_node.second_look.words import spelled_out, technical, words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from site_node.second_look.reading import Spoken

# Attributes that speak of a person, a place or one device, by keyword; every PN does whatever its name is.
_IDENTIFIERS = re.compile(
    r"^(PatientID|OtherPatientIDs|AccessionNumber|StudyID|AdmissionID|ServiceEpisodeID|MedicalRecordLocator|.*OrderNumber.*|"
    r"RequestedProcedureID|PerformedProcedureStepID|ScheduledProcedureStepID|SpecimenIdentifier|ContainerIdentifier|"
    r"SpecimenAccessionNumber|ClinicalTrialSubject.*ID|ClinicalTrialProtocolID|InterpretationID|ResultsID|CassetteID|PlateID|"
    r"BarcodeValue|HL7InstanceIdentifier|InsurancePlanIdentification|IssuerOf.*ID|MilitaryRank|UniversalEntityID)$"
)
_MACHINES = re.compile(r"^(.*SerialNumber|DetectorID|GantryID|GeneratorID|UniqueDeviceIdentifier|XRaySourceID|.*UDI)$")
_PLACES = re.compile(
    r"^(Institution(Name|Address|alDepartmentName)|.*Address|.*Telephone.*|.*Telecom.*|.*PhoneNumber|.*StationName|.*AETitle|"
    r".*ApplicationEntityTitle|.*Organization|RetrieveUR[LI]|CountryOfResidence|RegionOfResidence|CurrentPatientLocation|"
    r"PatientInstitutionResidence|ClinicalTrial(SponsorName|SiteName|CoordinatingCenterName)|RequestingService)$"
)
_MAKERS = re.compile(
    r"^(Manufacturer|ManufacturerModelName|CodingSchemeDesignator|CodingSchemeName|SecondaryCaptureDeviceManufacturer.*|Modality)$"
)
# Items of these speak of a person whatever their attributes are.
_ABOUT_PERSONS = re.compile(
    r"^((?!CodingScheme|ContextGroup|MappingResource).*IdentificationSequence|PersonIdentificationCodeSequence|InstitutionCodeSequence|OtherPatientIDsSequence)$"
)
# UIDs that name a thing of the standard or of a vocabulary, not one of a hospital.
_STANDARD_UIDS = re.compile(
    r".*(SOPClass|TransferSyntax|CodingScheme|Context|MappingResource|ImplementationClass|TemplateExtension).*UID.*"
)
_REGISTERED = "1.2.840.10008."
_NOBODYS_DAYS = frozenset(("19000101", "18000101", "00010101", "19700101", "99991231"))
_MIN_ALONE = 4  # letters of a name that is looked for by itself
_MIN_IDENTIFIER = 5  # characters of an identifier that is looked for at all
_MIN_DIGITS_ANYWHERE = 7  # digits of a number that is looked for in every byte
_MIN_PHRASE = 6
_MIN_UID = 12
_DAY = 8  # characters of a date
_MAX_LENGTH = 120  # characters of a value that is looked for as a whole


@dataclass(slots=True)
class Said:
    """What the original said, by how it is looked for. Every text is folded.

    `alone`: words and numbers that mean somebody wherever they stand, with their kind. `pairs`: two words that
    mean somebody together. `weak`: words of radiology that are somebody's name. `phrases`: whole values.
    """

    alone: dict[str, str] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)  # as written, for other scripts and repertoires
    pairs: set[tuple[str, str]] = field(default_factory=set)
    weak: set[str] = field(default_factory=set)
    phrases: dict[str, str] = field(default_factory=dict)
    ends: set[str] = field(default_factory=set)  # the words that phrases begin or end with
    days: set[str] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)


def collect(spoken: Iterable[Spoken]) -> Said:
    """Return what the attributes of an original say of persons."""
    said, makers = Said(), set[str]()
    for one in spoken:
        _take(said, one)
        if _is_maker(one.keyword):
            makers.update(word for value in one.values for word in words(value))
    for word in makers:
        # A station may be called after the maker of its machines, a scheme of codes after a hospital.
        if said.alone.get(word) not in (None, "identifier"):
            del said.alone[word]
    return said


@lru_cache(maxsize=8192)
def _is_maker(keyword: str) -> bool:
    return _MAKERS.match(keyword) is not None


@lru_cache(maxsize=8192)
def _is_standard(keyword: str) -> bool:
    return _STANDARD_UIDS.match(keyword) is not None


def _take(said: Said, one: Spoken) -> None:
    if one.vr == "UI":
        if not _is_standard(one.keyword):
            said.uids.update(text for text in one.values if len(text) >= _MIN_UID and not text.startswith(_REGISTERED))
    elif one.vr in ("DA", "DT"):
        said.days.update(
            day for text in one.values if len(day := text[:_DAY]) == _DAY and day.isdigit() and day not in _NOBODYS_DAYS
        )
    elif one.vr == "PN":
        for text in one.values:
            _name(said, text)
    else:
        kind = _kind(one.keyword, one.parents)
        for text in one.values if kind else ():
            _phrase(said, text, kind)


@lru_cache(maxsize=65536)
def _kind(keyword: str, parents: tuple[str, ...]) -> str:
    if _IDENTIFIERS.match(keyword) or any(_ABOUT_PERSONS.match(parent) for parent in parents):
        return "identifier"
    if _MACHINES.match(keyword):
        return "device"
    return "place" if _PLACES.match(keyword) else ""


def _name(said: Said, text: str) -> None:
    for group in text.split("="):
        parts = [part for part in re.split(r"[\^\s,]+", group) if part]
        own = [(part, fold(part)) for part in parts]
        for part, folded in own:
            _word(said, part, folded, "name")
        plain = [folded for _, folded in own if folded.isalpha()]
        said.pairs.update(
            (one, other) for one in plain for other in plain if one != other and len(one) > 1 and len(other) > 1
        )
        if not group.isascii() and len(parts) > 1:
            whole = "".join(parts)
            said.raw[whole] = "name"
            said.phrases[fold(whole)] = "name"
            said.ends.update(words(whole))


def _word(said: Said, part: str, folded: str, kind: str) -> None:
    known = technical()
    for piece in {folded, spelled_out(part), *words(part)}:
        if piece in known:
            if piece.isalpha() and len(piece) > 2:  # noqa: PLR2004 -- MR, CT: nobody is called so
                said.weak.add(piece)
        elif len(piece) >= _MIN_ALONE or (not piece.isascii() and len(piece) > 1):
            said.alone[piece] = kind
            if not part.isascii() and piece == folded:
                said.raw[part] = kind


def _phrase(said: Said, text: str, kind: str) -> None:
    found, known = words(text), technical()
    if not found or len(text) > _MAX_LENGTH:
        return
    for word in found:
        if any(map(str.isdigit, word)):
            if len(word) >= _MIN_IDENTIFIER:
                said.alone[word] = kind
        elif (
            word not in known
            and (kind != "place" or len(word) > _MIN_ALONE)
            and len(word) >= _MIN_ALONE
            and kind != "device"
        ):
            said.alone[word] = kind
            if not word.isascii():
                said.raw[word] = kind
    whole = " ".join(found)
    if len(found) > 1 and len(whole) >= _MIN_PHRASE and any(word not in known for word in found):
        said.phrases[whole] = kind
        said.ends |= {found[0], found[-1]}


def anywhere(word: str) -> bool:
    """Return whether a word is looked for in every byte: not a short number, which any data can hold."""
    if word.isdigit():
        return len(word) >= _MIN_DIGITS_ANYWHERE
    return len(word) >= _MIN_IDENTIFIER or (not word.isascii() and len(word) > 1)
