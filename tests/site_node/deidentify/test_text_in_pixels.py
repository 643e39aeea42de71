"""What is done with each text that is found: blanked, kept, or shown to a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from site_node.deidentify.burned_in import Spot, Text
from site_node.deidentify.identities import Identities
from site_node.deidentify.picture import Box, Picture, picture
from site_node.deidentify.pixels import (
    Assessment,
    Blank,
    Sort,
    Why,
    assess,
    known_regions,
    known_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

PLACE = Box(20, 30, 32, 90)


NOBODY = Identities.of()
MORIARTY = Identities.of(names=["Moriarty^Leonora"])


@dataclass
class Scripted:
    """Sees what the test tells, and remembers at what it looked."""

    spot: Spot | None = None
    words: str = ""
    confidence: float = 0.95
    looked: list[tuple[int, ...]] = field(default_factory=list)
    only_white: bool = False

    def spots(self, view: np.ndarray[Any, Any], *, thorough: bool = True) -> tuple[Spot, ...]:
        """Return the told spot."""
        self.looked.append((*view.shape, thorough))
        seen = self.spot is not None and (not self.only_white or view.max() == 255)
        return (self.spot,) if self.spot is not None and seen else ()

    def read(self, view: np.ndarray[Any, Any], boxes: Iterable[Box]) -> tuple[Text, ...]:
        """Return the told words."""
        assert view.size
        return tuple(Text(box, self.words, self.confidence, vertical=False) for box in boxes)


def screenshot(frames: int = 1, sop_class: str = uid.UltrasoundImageStorage, **attributes: object) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = sop_class
    ds.Rows, ds.Columns, ds.NumberOfFrames = 128, 160, frames
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def pictured(ds: Dataset, *bright: int) -> Picture:
    """Return frames of even grey; those named have a white square."""
    pixels = np.full((int(ds.NumberOfFrames), ds.Rows, ds.Columns), 60, np.uint8)
    for index in bright:
        pixels[index, 20:32, 30:90] = 255
    return picture(ds, memoryview(pixels.tobytes()))


def judged(words: str, confidence: float = 0.95, score: float = 0.95, box: Box = PLACE) -> Assessment:
    ds = screenshot()
    return assess(ds, pictured(ds), MORIARTY, Scripted(Spot(box, score), words, confidence))


@pytest.mark.parametrize("words", ["L", "5 cm", "AXIAL"])
def test_harmless_words_that_are_read_surely_stay_and_are_recorded_by_sort(words: str) -> None:
    place = Box(20, 30, 32, 30 + 9 * len(words))
    assessment = judged(words, box=place)

    assert assessment.boxes == ()
    assert [(kept.box, kept.sort) for kept in assessment.kept] == [
        (place, {"L": Sort.MARKER, "5 cm": Sort.MEASURE, "AXIAL": Sort.TECHNIQUE}[words])
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [("L. MORIARTY", Why.IDENTITY), ("ID: 8812345", Why.TEXT), ("Szymanski, Beatrix", Why.TEXT), ("", Why.UNREADABLE)],
)
def test_what_identifies_or_cannot_be_read_is_blanked(words: str, why: Why) -> None:
    (blank,) = judged(words, score=0.97).blanks

    assert blank.why is why
    assert blank.box.top < PLACE.top
    assert blank.box.left < PLACE.left
    assert blank.box.bottom > PLACE.bottom
    assert blank.box.right > PLACE.right


def test_what_one_network_alone_sees_unsurely_and_nobody_reads_stays() -> None:
    assert judged("", score=0.95).boxes == ()


def test_harmless_words_that_are_read_unsurely_are_blanked() -> None:
    assert judged("AXIAL", confidence=0.6).boxes != ()


def test_an_unsure_place_without_a_readable_letter_is_no_text() -> None:
    assert judged("", score=0.4) == Assessment((), (), ())


@pytest.mark.parametrize(("agreed", "held"), [(True, True), (False, False)])
def test_a_thick_place_without_a_readable_letter_goes_to_a_person_if_both_networks_see_it(
    *, agreed: bool, held: bool
) -> None:
    ds = screenshot()

    assessment = assess(ds, pictured(ds), NOBODY, Scripted(Spot(Box(10, 10, 70, 150), 0.95, agreed)))

    assert assessment.blanks == ()
    assert bool(assessment.doubtful) == held


@pytest.mark.parametrize(("agreed", "blanked"), [(True, 1), (False, 0)])
def test_one_unsure_letter_counts_where_both_networks_see_a_line(*, agreed: bool, blanked: int) -> None:
    ds = screenshot()

    assessment = assess(ds, pictured(ds), NOBODY, Scripted(Spot(Box(10, 10, 22, 22), 0.6, agreed), "Q", 0.7))

    assert len(assessment.blanks) == blanked


def test_words_too_long_for_their_place_were_not_there() -> None:
    assert judged("Moriarty, Leonora", box=Box(10, 10, 40, 40), score=0.5) == Assessment((), (), ())


@dataclass
class Reads:
    """Sees the told places and reads the told words there."""

    told: dict[Box, tuple[str, bool]]

    def spots(self, view: np.ndarray[Any, Any], *, thorough: bool = True) -> tuple[Spot, ...]:
        """Return the told places."""
        assert view.size
        assert thorough
        return tuple(Spot(box, 0.9, agreed) for box, (_, agreed) in self.told.items())

    def read(self, view: np.ndarray[Any, Any], boxes: Iterable[Box]) -> tuple[Text, ...]:
        """Return the told words."""
        assert view.size
        return tuple(Text(box, self.told[box][0], 0.95, vertical=False) for box in boxes)


def test_harmless_words_that_continue_an_identity_go_with_it_and_others_stay() -> None:
    label, number, below = Box(20, 10, 32, 40), Box(20, 50, 32, 120), Box(40, 10, 52, 40)
    ds = screenshot()

    assessment = assess(
        ds, pictured(ds), NOBODY, Reads({label: ("PA", True), number: ("88123456", True), below: ("AP", True)})
    )

    assert [kept.box for kept in assessment.kept] == [below]
    assert len(assessment.blanks) == 2


def test_what_lies_between_two_pieces_of_a_line_goes_too() -> None:
    ds = screenshot()
    pieces = {Box(20, 10, 32, 40): ("Morat", False), Box(20, 110, 32, 150): ("onora", False)}

    boxes = assess(ds, pictured(ds), NOBODY, Reads(pieces)).boxes

    assert any(box.left <= 40 and box.right >= 110 for box in boxes)


def test_outside_of_the_image_regions_of_an_ultrasound_less_is_needed() -> None:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 60
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 159, 127
    ds = screenshot(SequenceOfUltrasoundRegions=[region])

    outside = assess(ds, pictured(ds), NOBODY, Scripted(Spot(PLACE, 0.6)))
    inside = assess(ds, pictured(ds), NOBODY, Scripted(Spot(Box(80, 30, 92, 90), 0.6)))

    assert [blank.why for blank in outside.blanks] == [Why.UNREADABLE]
    assert inside.blanks == ()


def test_text_on_one_frame_alone_is_found_and_blanked_on_all() -> None:
    ds = screenshot(frames=5)
    sight = Scripted(Spot(Box(20, 30, 32, 90), 0.9), "Moriarty", only_white=True)

    assessment = assess(ds, pictured(ds, 3), NOBODY, sight)

    assert len(assessment.blanks) == 1


def test_what_stands_still_beside_a_change_is_not_judged_again() -> None:
    ds = screenshot(frames=5)
    sight = Scripted(Spot(Box(50, 30, 62, 90), 0.9), "Moriarty", only_white=True)

    assert assess(ds, pictured(ds, 3), NOBODY, sight).blanks == ()


def test_a_line_too_long_for_a_marker_is_blanked_without_being_read() -> None:
    ds = screenshot()
    sight = Scripted(Spot(Box(20, 10, 32, 110), 0.9, agreed=True), "L")

    assert [blank.why for blank in assess(ds, pictured(ds), NOBODY, sight).blanks] == [Why.TEXT]


@pytest.mark.parametrize(("words", "box"), [("MRN285", Box(20, 10, 32, 70)), ("AXIAL", Box(20, 10, 32, 90))])
def test_a_number_with_its_label_and_a_line_read_in_part_do_not_stay(words: str, box: Box) -> None:
    ds = screenshot()

    assessment = assess(ds, pictured(ds), NOBODY, Scripted(Spot(box, 0.9, agreed=True), words))

    assert assessment.kept == ()
    assert len(assessment.blanks) == 1


def test_what_lies_between_a_lying_and_a_standing_line_stays() -> None:
    lying, standing = Box(100, 30, 112, 140), Box(10, 10, 110, 22)
    ds = screenshot()

    told = Reads({lying: ("Moriarty, Leonora", False), standing: ("88123456", False)})
    assessment = assess(ds, pictured(ds), NOBODY, told)

    assert len(assessment.blanks) == 2


def test_a_line_is_blanked_to_where_its_strokes_end() -> None:
    ds = screenshot()
    pixels = np.full((128, 160), 60, np.uint8)
    pixels[20:32, 30:90:4] = 255

    blank = assess(
        ds, picture(ds, memoryview(pixels.tobytes())), NOBODY, Scripted(Spot(Box(20, 30, 32, 80), 0.9), "Moriarty")
    ).blanks[0]

    assert blank.box.left < 30
    assert 90 <= blank.box.right < 105


def test_a_single_letter_that_nobody_can_read_stays() -> None:
    ds = screenshot()
    sight = Scripted(Spot(Box(20, 10, 32, 22), 0.95, agreed=True), "")

    assert assess(ds, pictured(ds), NOBODY, sight).blanks == ()


def test_frames_that_do_not_differ_are_looked_at_once() -> None:
    ds = screenshot(frames=5)
    sight = Scripted()

    assess(ds, pictured(ds), NOBODY, sight)

    assert len(sight.looked) == 1


def test_only_what_differs_is_looked_at_again() -> None:
    ds = screenshot(frames=2)
    sight = Scripted()

    assess(ds, pictured(ds, 1), NOBODY, sight)

    assert sight.looked[0] == (128, 160, True)
    assert sight.looked[1][0] < 128


@pytest.mark.parametrize(
    ("sop_class", "image_type", "thorough"),
    [
        (uid.UltrasoundImageStorage, "ORIGINAL", True),
        (uid.DigitalXRayImageStorageForPresentation, "ORIGINAL", True),
        (uid.CTImageStorage, "ORIGINAL", False),
        (uid.CTImageStorage, ["DERIVED", "SECONDARY", "SCREEN SAVE"], True),
        ("1.2.3", "ORIGINAL", True),
    ],
)
def test_a_plain_slice_is_looked_at_at_its_own_size_alone(
    sop_class: str, image_type: str | list[str], *, thorough: bool
) -> None:
    ds = screenshot(sop_class=sop_class, ImageType=image_type)
    sight = Scripted()

    assess(ds, pictured(ds), NOBODY, sight)

    assert [looked[-1] for looked in sight.looked] == [thorough]


def test_where_a_known_device_writes_the_patient_is_blanked_unseen() -> None:
    ds = screenshot(
        Manufacturer="GE Healthcare", ManufacturerModelName="LOGIQE9", Modality="US", Rows=748, Columns=1346
    )

    assert known_regions(ds, 748, 1346) == (Box(0, 0, 24, 1000),)
    assert Blank(Box(0, 0, 28, 1004), Why.KNOWN_REGION) in assess(ds, pictured(ds), NOBODY, Scripted()).blanks
    assert known_regions(ds, 749, 1346) == ()


def test_every_known_region_lies_in_its_picture_and_leaves_most_of_it() -> None:
    for (rows, columns), boxes in known_sizes():
        hidden = np.zeros((rows, columns), bool)
        for box in boxes:
            assert 0 <= box.top < box.bottom <= rows
            assert 0 <= box.left < box.right <= columns
            hidden[box.top : box.bottom, box.left : box.right] = True
        assert hidden.mean() < 0.25
