"""The virtual patients are proper DICOM, their labels lie on their images, and inboxes repeat."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
from pydicom import dcmread

from demo.anatomy import GREY_MATTER, SHAPE, SPACING_MM, WHITE_MATTER, Look, virtual_brain
from demo.hospitals import HOSPITALS, make_inbox, public_files

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from demo.hospitals import Inbox

CODES = {"389081007": GREY_MATTER, "389080008": WHITE_MATTER}


def images_of(folder: Path, patient: int) -> list[Dataset]:
    return [dcmread(path) for path in sorted((folder / "virtual" / f"{patient:03d}").glob("mr*.dcm"))]


def segmentation_of(folder: Path, patient: int) -> hd.seg.Segmentation:
    return hd.seg.segread(folder / "virtual" / f"{patient:03d}" / "seg.dcm")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_patient_has_one_series_of_one_study(inbox: Inbox, inbox_folder: Path) -> None:
    for number, patient in enumerate(inbox.patients):
        images = images_of(inbox_folder, number)

        assert len(images) == SHAPE[0]
        assert {ds.SOPClassUID.name for ds in images} == {"MR Image Storage"}
        assert {ds.StudyInstanceUID for ds in images} == {patient.StudyInstanceUID}
        assert {ds.SeriesInstanceUID for ds in images} == {patient.SeriesInstanceUID}
        assert tuple(ds.SOPInstanceUID for ds in images) == patient.SOPInstanceUIDs
        assert {ds.pixel_array.shape for ds in images} == {SHAPE[1:]}


def test_slices_stack_along_their_normal_at_the_stated_spacing(inbox: Inbox, inbox_folder: Path) -> None:
    assert inbox.patients
    images = images_of(inbox_folder, 0)
    orientation = np.array(images[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    heights = [float(np.dot(ds.ImagePositionPatient, normal)) for ds in images]

    assert np.allclose(np.diff(heights), SPACING_MM[0])
    assert {float(ds.SliceThickness) for ds in images} == {SPACING_MM[0]}
    assert {float(ds.SpacingBetweenSlices) for ds in images} == {SPACING_MM[0]}
    assert {tuple(map(float, ds.PixelSpacing)) for ds in images} == {SPACING_MM[1:]}


def test_the_segmentation_refers_to_the_images_it_lies_on(inbox: Inbox, inbox_folder: Path) -> None:
    for number, patient in enumerate(inbox.patients):
        segmentation = segmentation_of(inbox_folder, number)
        sources = {str(instance) for _, _, instance in segmentation.get_source_image_uids()}

        assert sources == set(patient.SOPInstanceUIDs)
        assert segmentation.FrameOfReferenceUID == patient.FrameOfReferenceUID
        assert {
            segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in segmentation.SegmentSequence
        } == set(CODES)


def test_segments_cover_the_tissue_in_the_image(inbox: Inbox, inbox_folder: Path) -> None:
    for number, patient in enumerate(inbox.patients):
        pixels = np.stack([ds.pixel_array for ds in images_of(inbox_folder, number)])
        masks = segmentation_of(inbox_folder, number).get_pixels_by_source_instance(
            list(patient.SOPInstanceUIDs), assert_missing_frames_are_empty=True
        )
        grey, white = masks[..., 0] > 0, masks[..., 1] > 0

        assert not np.any(grey & white)
        assert min(grey.mean(), white.mean()) > 0.1
        # Tissue is brighter than air, and the two tissues differ; moved masks would mix them.
        air = ~(grey | white)
        assert np.median(pixels[grey | white]) > 3 * np.median(pixels[air])
        assert abs(np.median(pixels[grey]) - np.median(pixels[white])) > 0.05 * np.median(pixels[white])


def test_t1_shows_white_matter_brighter_and_t2_darker() -> None:
    for inverted in (False, True):
        brain = virtual_brain(np.random.default_rng(3), Look(1.0, bias=0.1, noise=0.02, inverted=inverted))
        grey, white = (np.median(brain.image[brain.labels == label]) for label in (GREY_MATTER, WHITE_MATTER))

        assert (white < grey) == inverted


def test_the_back_of_the_head_is_at_the_bottom_and_both_halves_are_alike() -> None:
    brain = virtual_brain(np.random.default_rng(5), HOSPITALS["north"].t1.look)
    there = brain.labels > 0
    columns = np.flatnonzero(there.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) // 2
    left, right = there[..., : middle + 1].sum(), there[..., middle + 1 :].sum()

    assert 0.8 < left / right < 1.25
    # The frontal lobes taper; the widest row of a brain lies behind its middle.
    rows = np.flatnonzero(there.any(axis=(0, 2)))
    widest = int(np.argmax(there.any(axis=0).sum(axis=1)))
    assert widest > (rows[0] + rows[-1]) / 2


def test_identities_stand_in_plain_nested_private_and_file_level_places(inbox: Inbox, inbox_folder: Path) -> None:
    patient = inbox.patients[0]
    ds = images_of(inbox_folder, 0)[0]
    private = ds.private_block(0x0029, "INVENTED SCANNER HEADER")
    family = patient.name.split("^")[0]

    assert str(ds.PatientName) == patient.name.rstrip("^") or str(ds.PatientName) == patient.name
    assert ds.OtherPatientIDsSequence[0].PatientID == patient.other_id
    assert family in ds.StudyDescription
    assert family in str(private[0x02].value)
    assert family in str(private[0x04].value[0].PatientName)
    assert patient.patient_id.encode() in ds.preamble
    assert patient.accession.encode() in ds.file_meta.PrivateInformation


def test_what_is_planted_can_be_found_in_the_original_files(inbox: Inbox, inbox_folder: Path) -> None:
    content = b"".join(path.read_bytes() for path in (inbox_folder / "virtual").rglob("*.dcm"))

    for patient in inbox.patients:
        for text in (patient.patient_id, patient.name, patient.address, patient.phone, patient.accession):
            assert text in inbox.planted
            assert text.encode("latin-1") in content


def test_no_file_claims_burned_in_text_or_a_face(inbox: Inbox, inbox_folder: Path) -> None:
    for number in range(len(inbox.patients)):
        for ds in images_of(inbox_folder, number):
            assert ds.BurnedInAnnotation == "NO"
            assert ds.RecognizableVisualFeatures == "NO"


def test_three_files_are_broken_each_in_its_way(inbox: Inbox, inbox_folder: Path) -> None:
    broken = {path.name: path.read_bytes() for path in (inbox_folder / "broken").iterdir()}
    truncated = dcmread(inbox_folder / "broken" / "truncated-in-the-pixels.dcm", stop_before_pixels=True)

    assert len(broken) == 3
    assert broken["empty.dcm"] == b""
    assert b"DICM" not in broken["not-dicom.dcm"]
    assert len(broken["truncated-in-the-pixels.dcm"]) < truncated.Rows * truncated.Columns * 2
    assert inbox.files == len(digests(inbox_folder))


def test_together_the_hospitals_have_every_public_file_once(inbox: Inbox, inbox_folder: Path) -> None:
    names = [name for name, _ in public_files()]
    shares = [names[place :: len(HOSPITALS)] for place in range(len(HOSPITALS))]
    public = inbox_folder / "public"
    copied = {str(path.relative_to(public)) for path in public.rglob("*") if path.is_file()}

    assert inbox.hospital == "east"
    assert copied == set(shares[1])
    assert sorted(name for share in shares for name in share) == sorted(set(names))
    assert len(names) > 200


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_patients(
    inbox: Inbox, inbox_folder: Path, tmp_path: Path
) -> None:
    again = make_inbox("east", tmp_path / "again", patients=1, seed=7)
    other = make_inbox("east", tmp_path / "other", patients=1, seed=8)
    first = {name: digest for name, digest in digests(inbox_folder).items() if name.startswith("virtual/000/")}

    assert again.patients[0] == inbox.patients[0]
    assert digests(tmp_path / "again" / "virtual" / "000") == {
        name.removeprefix("virtual/000/"): digest for name, digest in first.items()
    }
    assert other.patients[0].name != again.patients[0].name
