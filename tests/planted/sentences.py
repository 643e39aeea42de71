"""How much of what identifies is left in text, and how many harmless words stay: measured on made-up sentences.

Sentences of four kinds (headers, comments, structured reports, reports) hold marked values of made-up
people of ten countries, and clean sentences hold none. Each is cleaned twice: once knowing the people (as
their files say who they are), once not. The names are of three sorts: Faker's, which the word list was
cleared of; syllables no list has; and surnames that are ordinary words. Run
`python -m tests.planted.sentences [SEED] [-v]` to see the figures, and what was left and lost.
"""

from __future__ import annotations

import random
import re
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faker import Faker

from site_node.deidentify.identities import Identities, fold
from site_node.deidentify.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

_LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE", "pt_BR")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Surnames that are words: what an allow-list of words lets through.
_WORD_NAMES = _words("""
    Young Fields Waters Stone Little Gray White Brown Green Black Wilson Baker Bell Cross Small Short Long
    Strong Head Hand Foot Bone Rice Wood Woods Park Parks Hill Field Rivers Brooks Banks Church Bishop Pope
    King Knight Marshall Page Price Sharp Case Day May Love Power Powers Read Reed Rose Snow Winter Summers
    Frost Storm Fish Fox Wolf Bird Swan Crane Parkinson Hodges Chambers Barber Carpenter Carrier Cook Fisher
    Gardner Mason Miller Potter Sawyer Shepherd Slater Spicer Tanner Taylor Turner Walker Weaver Best Bright
    Free Golden Good Hardy Moody Noble Rich Savage Swift Sweet True Wise Wild Ball Bolt Box Branch Bridges
    Bush Cannon Castle Coffin Lane Lamb Major Marks Mills Moon Nail Peel Pike Pool Poole Post Ray Rush Sands
    Shields Speed Spears Stokes Street Temple Wall Ward Ware Wells West Wing
""")
_SORTS = ("surnames of lists", "surnames that are words", "surnames of no list")
_SYLLABLES = (
    "bra",
    "dol",
    "kem",
    "vor",
    "lis",
    "tan",
    "rek",
    "mol",
    "shu",
    "zan",
    "gri",
    "pel",
    "nov",
    "hass",
    "witz",
    "berg",
    "ova",
    "eau",
)


@dataclass(frozen=True, slots=True)
class Person:
    """A made-up patient, and who treats them."""

    given: str
    family: str
    born: date
    seen: date
    mrn: str
    accession: str
    phone: str
    street: str
    town: str
    postcode: str
    hospital: str
    mail: str
    doctor_given: str
    doctor: str
    room: str
    age: str
    hour: str

    def identities(self) -> Identities:
        """Return what a file of this person says."""
        return Identities.of(
            names=(f"{self.family}^{self.given}", f"{self.doctor}^{self.doctor_given}^^Dr."),
            ids=(self.mrn, self.accession),
            dates=(f"{self.born:%Y%m%d}", f"{self.seen:%Y%m%d}"),
            places=(self.hospital, self.street, self.town, self.postcode),
            contacts=(self.phone, self.mail),
        )


_HEADERS = (
    "CT HEAD W/O CONTRAST {FAMILY}",
    "{FAMILY} {GIVEN} CT ABDOMEN",
    "{FAMILY}^{GIVEN} CHEST PA AND LAT",
    "MR BRAIN WITH CONTRAST {mrn}",
    "{FAMILY}, {GIVEN} DOB {born:%m/%d/%Y}",
    "THORAX NATIV {family} {born:%d.%m.%Y}",
    "{HOSPITAL} CT THORAX",
    "t2_tse_tra_320_{family}",
    "SPINE LUMBAR {accession} DR {DOCTOR}",
    "XR KNEE RIGHT {seen:%Y%m%d} {mrn}",
    "US ABDOMEN PT {GIVEN} {FAMILY}",
    "MAMMO BILAT REF DR {DOCTOR}",
    "CHEST PORTABLE ROOM {room} {FAMILY}",
    "SCHÄDEL CCT {FAMILY} GEB {born:%d.%m.%y}",
    "RODILLA DERECHA {FAMILY} {GIVEN}",
    "IRM GENOU {FAMILY} NEE {born:%d/%m/%Y}",
    "PET CT WHOLE BODY {accession}",
    "{GIVEN} {FAMILY} SHOULDER 3 VIEWS",
)
_COMMENTS = (
    "Patient {given} {family} moved during the scan",
    "Call Dr. {doctor} at {phone} with results",
    "Pt: {family}, {given}; MRN {mrn}; wrist fracture",
    "Scan repeated on {seen:%d %b %Y} because of motion, tech {doctor_given} {doctor}",
    "Mr. {family} has a pacemaker, checked by {doctor_given} {doctor}",
    "Lives at {street}, {town} {postcode}",
    "Send copy to {mail} and to {hospital}",
    "Allergic to contrast per mother Mrs. {family}",
    "Name: {given} {family}, weight 82 kg",
    "Frau {family} klagt über Schmerzen im Knie links",
    "Herr Dr. {doctor} bittet um Kontrolle, Tel. {phone}",
    "Mme {family} adressée par le Dr {doctor}, douleur du genou",
    "Paciente {given} {family} con dolor de cabeza",
    "Outside films from {hospital} dated {seen:%m/%d/%y} loaded",
    "Accession {accession} merged with wrong patient {family}",
)
_STRUCTURED = (
    "Procedure performed by {doctor_given} {doctor}, MD on {seen:%Y-%m-%d}",
    "Person Observer Name: {doctor}^{doctor_given}",
    "Subject Name: {family}^{given}",
    "Subject ID: {mrn}",
    "Comparison: CT of {seen:%B %d, %Y}",
    "Verified by: {doctor}, {doctor_given}",
    "Nodule in the right upper lobe measures 8 mm, reported by Dr {doctor}",
    "Mass of 23 mm in the left breast of {given} {family}",
    "Referring physician: {doctor_given} {doctor}",
    "Device observer at {hospital}, station serial {accession}",
)
_REPORTS = (
    (
        "HISTORY: {given} {family} is a {age}-year-old man with Parkinson's disease.\n"
        "FINDINGS: White matter lesions are unchanged."
    ),
    (
        "Dear Dr. {doctor},\nthank you for referring {given} {family}, born {born:%d %B %Y}.\n"
        "The chest radiograph is normal."
    ),
    "Findings were discussed with Dr. {doctor_given} {doctor} by telephone at {hour} on {seen:%m/%d/%Y}.",
    "Comparison is made to the study of {seen:%b %d, %Y} from {hospital}. No new nodule.",
    "Electronically signed by {doctor_given} {doctor}, M.D., {seen:%d.%m.%Y} {hour}",
    "IMPRESSION: No acute fracture. Dictated by {doctor} for {given} {family}, MRN: {mrn}.",
    (
        "Sehr geehrter Herr Kollege {doctor},\nwir berichten über {given} {family}, geb. {born:%d.%m.%Y}, "
        "wohnhaft {street}, {town}.\nKein Nachweis einer Fraktur."
    ),
    "Compte rendu: M. {family} {given}, né le {born:%d/%m/%Y}. Absence de lésion.",
    "Informe de {given} {family}, nacido el {born:%d/%m/%Y}. Sin hallazgos.",
    "The patient, {family}, fell at home. There is a Colles fracture of the left wrist.",
    "Contact: {phone}, {mail}. The liver is normal in size.",
    "Seen with {doctor_given} {doctor}. Wilson's disease is suspected.",
)
_KINDS = {"headers": _HEADERS, "comments": _COMMENTS, "structured": _STRUCTURED, "reports": _REPORTS}
_NAMES = ("family", "FAMILY", "given", "GIVEN", "doctor", "DOCTOR", "doctor_given")

_CLEAN = (
    "{Part} MRI shows no acute fracture or dislocation.",
    "There is a {size} mm nodule in the {side} upper lobe.",
    "Parkinson's disease with tremor, evaluate the substantia nigra.",
    "Known Wilson's disease, follow-up of the liver.",
    "White matter hyperintensities, Fazekas {grade}.",
    "Gray matter volume is preserved in the {side} hemisphere.",
    "{side} {part} pain after fall, rule out fracture.",
    "Baker's cyst of the {side} knee measuring {size} mm.",
    "Cobb angle of {size} degrees, Risser {grade}.",
    "Foley catheter and Swan-Ganz catheter in place.",
    "Hodgkin lymphoma staging, stage {grade} disease.",
    "Mild degenerative changes of the {part}, Kellgren-Lawrence grade {grade}.",
    "Small {side} pleural effusion, unchanged.",
    "No evidence of pulmonary embolism to the segmental level.",
    "Alzheimer's disease versus Lewy body dementia.",
    "Graves' disease with orbitopathy on the {side}.",
    "Hill-Sachs lesion and Bankart lesion of the {side} shoulder.",
    "Crohn's disease with terminal ileitis and fistula.",
    "Cushing syndrome, adrenal adenoma on the {side}, {size} mm.",
    "Barrett esophagus, biopsy advised.",
    "Bell's palsy, {side} facial nerve enhancement.",
    "Addison disease with small adrenal glands.",
    "The {part} is normal in size and attenuation.",
    "Postoperative changes with surgical clips in the {side} {part}.",
    "CT {PART} W/O CONTRAST {size} MM",
    "MR {PART} W WO CONTRAST {SIDE}",
    "XR {PART} 2 VIEWS {SIDE}",
    "AX T2 FSE FS {PART}",
    "SAG STIR {PART} {size}mm",
    "COR T1 POST GAD {PART}",
    "t1_vibe_fs_tra_bh_{part}",
    "ep2d_diff_b50_400_800_ADC",
    "{PART} 5.0 B30f",
    "{part} nativ und mit Kontrastmittel, Schichtdicke {size} mm",
    "Kein Nachweis einer Fraktur im Bereich der Schulter {sideDE}.",
    "Zustand nach Operation, Verlaufskontrolle der Lunge.",
    "IRM du genou {sideFR}, sans injection de gadolinium.",
    "Radiographie du thorax de face, absence de lésion.",
    "TC de tórax con contraste, sin hallazgos patológicos.",
    "Ecografia dell'addome, fegato nella norma.",
    "CT hoofd zonder contrast, geen afwijkingen.",
    "Brown fat uptake is seen in the neck on FDG PET.",
    "Dynamic liver imaging in arterial, portal venous and delayed phase.",
    "Turner syndrome with horseshoe kidney.",
    "Murphy sign is negative, gallbladder wall {grade} mm.",
    "Small bowel follow through with delayed images.",
    "Long axis and short axis cine views of the heart.",
    "Lateral decubitus and cross table views of the {side} {part}.",
    "Bone window, lung window and soft tissue kernel.",
    "Head and neck angiography with bolus tracking.",
)
_PARTS = (
    "head",
    "chest",
    "abdomen",
    "pelvis",
    "knee",
    "shoulder",
    "spine",
    "hip",
    "ankle",
    "wrist",
    "brain",
    "liver",
    "neck",
    "foot",
)


@dataclass(slots=True)
class Figures:
    """Counts over the sentences; `left` holds what was left, for a person who improves the rules."""

    entities: dict[str, int] = field(default_factory=dict)
    survived: dict[str, int] = field(default_factory=dict)
    names: int = 0
    names_left: int = 0
    sorts: dict[str, list[int]] = field(default_factory=dict)
    words: int = 0
    words_kept: int = 0
    clean_words: int = 0
    clean_words_kept: int = 0
    sentences: int = 0
    seconds: float = 0.0
    left: list[tuple[str, str]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return shares in per cent, and sentences a second."""
        total, survived = sum(self.entities.values()), sum(self.survived.values())
        return {
            "entities": total,
            "entity recall %": 100 * (1 - survived / max(total, 1)),
            "names": self.names,
            "names removed %": 100 * (1 - self.names_left / max(self.names, 1)),
            "harmless words kept %": 100 * self.words_kept / max(self.words, 1),
            "words of clean sentences kept %": 100 * self.clean_words_kept / max(self.clean_words, 1),
            "sentences/s": self.sentences / max(self.seconds, 1e-9),
            **{f"{sort} removed %": 100 * (1 - left / total) for sort, (total, left) in self.sorts.items()},
            **{f"recall {kind} %": 100 * (1 - self.survived.get(kind, 0) / n) for kind, n in self.entities.items()},
        }


def people(count: int, seed: int) -> list[Person]:
    """Return made-up people of ten countries; every third has a name of no list, or a word for a name."""
    rng = random.Random(seed)  # noqa: S311 -- made-up people
    sources = [Faker(locale) for locale in _LOCALES]
    for i, source in enumerate(sources):
        source.seed_instance(seed + i)
    return [_person(rng, sources[i % len(sources)], i) for i in range(count)]


def _person(rng: random.Random, fake: Faker, index: int) -> Person:
    def family() -> str:
        sort = index % len(_SORTS)
        if sort == 0:
            return str(fake.last_name())
        if sort == 1:
            return rng.choice(_WORD_NAMES)
        return "".join(rng.sample(_SYLLABLES, 3)).capitalize()

    name, town = family(), str(fake.city())
    return Person(
        given=str(fake.first_name()),
        family=name,
        born=fake.date_of_birth(minimum_age=18, maximum_age=90),
        seen=fake.date_between("-9y", "today"),
        mrn=rng.choice(("MRN{:07}", "{:08}", "P-{:06}", "H{:07}")).format(rng.randrange(10**6)),
        accession=rng.choice(("ACC-2024-{:05}", "A{:08}", "{:010}", "RIS{:07}")).format(rng.randrange(10**5)),
        phone=str(fake.phone_number()),
        street=str(fake.street_address()).replace("\n", ", "),
        town=town,
        postcode=str(fake.postcode()),
        hospital=rng.choice(
            ("{} General Hospital", "St. {} Hospital", "{} Clinic", "Klinikum {}", "Hôpital {}")
        ).format(rng.choice((town, family()))),
        mail=str(fake.email()),
        doctor_given=str(fake.first_name()),
        doctor=family(),
        room=str(rng.randrange(100, 900)),
        age=str(rng.randrange(18, 99)),
        hour=rng.choice(("3:45 pm", "14:22", "09:05", "11:30 AM")),
    )


_SLOT = re.compile(r"\{(\w+)(?::([^}]*))?\}")


def _planted(template: str, person: Person) -> tuple[str, list[tuple[str, str]]]:
    """Return a sentence and the (slot, value)s in it."""
    values: list[tuple[str, str]] = []

    def fill(match: re.Match[str]) -> str:
        slot, form = match.groups()
        raw = getattr(person, slot.lower())
        value = format(raw, form) if form else str(raw)
        value = value.upper() if slot.isupper() else value
        values.append((slot, value))
        return value

    return _SLOT.sub(fill, template), values


def clean_sentences(count: int, seed: int) -> list[str]:
    """Return sentences that name nobody."""
    rng = random.Random(seed)  # noqa: S311 -- made-up sentences
    out: list[str] = []
    for i in range(count):
        part, side = rng.choice(_PARTS), rng.choice((0, 1))
        out.append(
            _CLEAN[i % len(_CLEAN)].format(
                part=part,
                Part=part.capitalize(),
                PART=part.upper(),
                side=("left", "right")[side],
                SIDE=("LEFT", "RIGHT")[side],
                sideDE=("links", "rechts")[side],
                sideFR=("gauche", "droit")[side],
                size=rng.randrange(2, 30),
                grade=rng.randrange(1, 5),
            )
        )
    return out


def measure(seed: int = 20261124, *, known: bool, planted: int = 900, harmless: int = 300) -> Figures:
    """Clean the sentences and count what was left and what was lost.

    `known` says whether the cleaner is told who the people are.
    """
    figures = Figures()
    crowd = people(planted, seed)
    templates = [(kind, template) for kind, group in _KINDS.items() for template in group]
    for index, person in enumerate(crowd):
        kind, template = templates[index % len(templates)]
        text, values = _planted(template, person)
        identities = person.identities() if known else Identities()
        answer = _timed(figures, lambda text=text, identities=identities: clean(text, identities))  # type: ignore[misc]
        _count_left(figures, kind, template, values, text, answer, _SORTS[index % len(_SORTS)])
        figures.words, figures.words_kept = _count_words(
            figures, _SLOT.sub(" ", template), answer, figures.words, figures.words_kept, text
        )
    for index, text in enumerate(clean_sentences(harmless, seed)):
        person = crowd[index % len(crowd)]
        identities = Identities()
        answer = _timed(figures, lambda text=text, identities=identities: clean(text, identities))  # type: ignore[misc]
        figures.clean_words, figures.clean_words_kept = _count_words(
            figures, text, answer, figures.clean_words, figures.clean_words_kept, text
        )
    return figures


def _timed(figures: Figures, act: Callable[[], str]) -> str:
    start = time.process_time()
    answer = act()
    figures.seconds += time.process_time() - start
    figures.sentences += 1
    return answer


_WORD = re.compile(r"[^\W_]+")


def _count_left(
    figures: Figures, kind: str, template: str, values: list[tuple[str, str]], text: str, answer: str, sort: str
) -> None:
    own = set(_WORD.findall(fold(_SLOT.sub(" ", template))))
    present = _WORD.findall(fold(answer))
    joined = "".join(present)
    for slot, value in values:
        figures.entities[kind] = figures.entities.get(kind, 0) + 1
        parts = [w for w in _WORD.findall(fold(value)) if len(w) > 2 and w not in own and w not in _GENERIC]
        if slot in _NAMES:
            figures.names += 1
            left = any(part in present for part in parts)
            figures.names_left += left
            if not slot.lower().endswith("given"):
                counts = figures.sorts.setdefault(sort, [0, 0])
                counts[0] += 1
                counts[1] += left
        elif slot in ("room", "age", "hour"):
            left = re.search(rf"\b{re.escape(value)}\b", answer) is not None
        elif any(c.isdigit() for c in value) and slot not in ("street", "mail"):
            digits = re.sub(r"\D", "", value)
            left = digits in re.sub(r"\D", "", answer) or any(w in present for w in parts if len(w) > 3 and w.isdigit())
        else:
            left = bool(parts) and (all(p in present for p in parts) or "".join(_WORD.findall(fold(value))) in joined)
        if left:
            figures.survived[kind] = figures.survived.get(kind, 0) + 1
            figures.left.append((f"{slot}={value}", f"{text!r} -> {answer!r}"))


_GENERIC = frozenset(_words("hospital general clinic klinikum hopital saint"))


def _count_words(figures: Figures, harmless: str, answer: str, words: int, kept: int, text: str) -> tuple[int, int]:
    present = _WORD.findall(fold(answer))
    for word in _WORD.findall(fold(harmless)):
        if word.isdigit() and len(word) > 3:
            continue
        words += 1
        if word in present:
            kept += 1
            present.remove(word)
        else:
            figures.lost.append((word, text))
    return words, kept


def main() -> None:
    """Print the figures."""
    for known in (True, False):
        figures = measure(known=known, seed=int(sys.argv[1]) if len(sys.argv) > 1 else 20261124)
        print("knowing the people:" if known else "not knowing them:")  # noqa: T201
        for name, value in figures.summary().items():
            print(f"  {name:34}{value:10.2f}")  # noqa: T201
        if "-v" in sys.argv:
            for what, where in figures.left:
                print("  LEFT", what, "|", where)  # noqa: T201
            for what, where in figures.lost:
                print("  LOST", what, "|", where)  # noqa: T201


if __name__ == "__main__":
    main()
