"""One instance joined from its parts: what is let in, what is held, and what is said of it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UltrasoundImageStorage, VLPhotographicImageStorage

from site_node.deidentify.instance import FACE, MAY_CARRY_TEXT, Accepted, Cleaner, Decision, Held
from site_node.deidentify.picture import Box
from site_node.deidentify.profile import Options
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.deidentify.visible_light import HEAD
from tests.site_node.dicom_files import KEY, NAME, PATIENT_ID, file_bytes, masks, mr_series, mr_slice, segmentation

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CLEANER = Cleaner(Options(), Pseudonymiser(KEY))
SIZE = (160, 320)
NAME_AT, MARKER_AT = (20, 20), (20, 110)


def screen(**attributes: object) -> Dataset:
    """Return an ultrasound with the patient's name and a laterality marker drawn in."""
    picture = Image.new("L", SIZE[::-1], 20)
    pen = ImageDraw.Draw(picture)
    pen.text(NAME_AT, "SANCHO PANZA 1961-04-17", fill=230, font_size=18)
    pen.text(MARKER_AT, "L", fill=230, font_size=18)
    pixels = np.array(picture, np.uint8)
    values = {
        "SOPClassUID": UltrasoundImageStorage,
        "Modality": "US",
        "PatientName": "PANZA^SANCHO",
        "Rows": SIZE[0],
        "Columns": SIZE[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelData": pixels.tobytes(),
    }
    ds = mr_slice(0, **(values | attributes))
    ds["PixelData"].VR = "OB"
    return ds


def clean(ds: Dataset, decision: Decision | None = None, cleaner: Cleaner = CLEANER) -> Dataset:
    result = cleaner.clean(memoryview(file_bytes(ds)), decision or Decision())
    assert isinstance(result, Accepted)
    return dcmread(BytesIO(b"".join(result.chunks)))


def held(ds: Dataset, cleaner: Cleaner = CLEANER) -> Held:
    result = cleaner.clean(memoryview(file_bytes(ds)), Decision())
    assert isinstance(result, Held)
    return result


def test_a_name_on_the_screen_is_blanked_and_a_marker_stays() -> None:
    before = screen().pixel_array

    result = CLEANER.clean(memoryview(file_bytes(screen())), Decision())
    assert isinstance(result, Accepted)
    after = dcmread(BytesIO(b"".join(result.chunks)))

    assert result.notes == ("text-kept: 1 marker",)
    name, marker = slice(NAME_AT[1], 42), slice(MARKER_AT[1], 132)
    assert after.pixel_array[name].max() < 60
    np.testing.assert_array_equal(after.pixel_array[marker], before[marker])
    assert after.BurnedInAnnotation == "NO"
    assert "113101" in {item.CodeValue for item in after.DeidentificationMethodCodeSequence}


def test_a_persons_boxes_are_blanked_in_place_of_the_proposed() -> None:
    before = screen().pixel_array
    box = Box(100, 0, 160, 320)

    after = clean(screen(), Decision(boxes=(box,))).pixel_array

    assert after[box.top :].max() <= 20
    np.testing.assert_array_equal(after[: box.top], before[: box.top])


def test_with_clean_pixel_data_off_what_may_carry_text_is_held() -> None:
    cleaner = Cleaner(Options(clean_pixel_data=False), Pseudonymiser(KEY))

    assert held(screen(), cleaner).reason == MAY_CARRY_TEXT
    kept = clean(mr_slice(0), cleaner=cleaner)
    assert "113101" not in {item.CodeValue for item in kept.DeidentificationMethodCodeSequence}
    assert "BurnedInAnnotation" not in kept


def test_of_labels_nothing_is_claimed_that_nobody_looked_for() -> None:
    after = clean(segmentation(mr_series(), masks()))

    assert "BurnedInAnnotation" not in after
    assert "113101" not in {item.CodeValue for item in after.DeidentificationMethodCodeSequence}


def test_a_section_of_a_head_waits_for_its_series_and_a_reason_of_a_face_clears_it() -> None:
    head = mr_slice(0, BodyPartExamined="HEAD")

    assert held(head).reason == FACE
    assert "RecognizableVisualFeatures" not in clean(head, Decision(boxes=(), accept=frozenset({"face-in-localiser"})))
    assert clean(mr_slice(0)).RecognizableVisualFeatures == "NO"


def test_a_photograph_of_a_face_is_held_by_its_header() -> None:
    face = screen(SOPClassUID=VLPhotographicImageStorage, BodyPartExamined="FACE")

    assert held(face).reason == HEAD


def test_a_held_instance_is_named_by_pseudonyms_alone() -> None:
    about = held(mr_slice(0, BodyPartExamined="HEAD")).about

    assert about.SOPInstanceUID.startswith("2.25.")
    assert not any(needle in str(about) for needle in (NAME, PATIENT_ID))


def test_the_same_file_gives_the_same_bytes() -> None:
    content = memoryview(file_bytes(screen()))

    first, second = (CLEANER.clean(content, Decision()) for _ in range(2))

    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert b"".join(first.chunks) == b"".join(second.chunks)


def test_a_compressed_picture_keeps_its_syntax_and_loses_its_comment() -> None:
    path = str(get_testdata_file("JPEG2000.dcm"))
    before = dcmread(path)

    result = CLEANER.clean(memoryview(Path(path).read_bytes()), Decision(boxes=()))

    assert isinstance(result, Accepted)
    after = dcmread(BytesIO(b"".join(result.chunks)))
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
