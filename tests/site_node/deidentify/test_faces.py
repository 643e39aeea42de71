"""Which series may show a face, judged by their headers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from site_node.deidentify import faces
from site_node.deidentify.faces import Clear, Deface, Hold, SliceGeometry, geometries, plan

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def stack(
    count: int = 40, step: float = 2.0, orientation: tuple[float, ...] = AXIAL, **facts: object
) -> list[SliceGeometry]:
    normal = np.cross(orientation[:3], orientation[3:])
    one = SliceGeometry(
        "CT", ("HEAD",), ("Head plain",), ("ORIGINAL", "PRIMARY", "AXIAL"), 256, 256, (0.9, 0.9), orientation
    )
    one = replace(one, **facts)  # type: ignore[arg-type]
    return [replace(one, position=tuple(map(float, normal * step * i))) for i in range(count)]


def test_a_stack_of_a_head_is_defaced() -> None:
    found = plan(stack())

    assert isinstance(found, Deface)
    assert found.stack == tuple((i,) for i in range(40))


def test_the_affine_takes_indices_to_the_patient() -> None:
    found = plan(stack(step=1.5))

    assert isinstance(found, Deface)
    assert np.allclose(np.array(found.affine) @ (2, 10, 20, 1), (18.0, 9.0, 3.0, 1))


@pytest.mark.parametrize("part", ["CHEST", "ABDOMEN", "KNEE", "Entire knee", "LSPINE"])
def test_a_part_without_a_face_is_clear_and_says_so(part: str) -> None:
    assert plan(stack(body_parts=(part,), words=("Routine",))) == Clear(faces.NO_HEAD, "NO")


@pytest.mark.parametrize(
    "words", ["Head and neck", "CT Schädel nativ", "IRM cérébrale, crâne", "PET whole body", "t1_mprage"]
)
def test_a_description_of_a_head_outweighs_the_part(words: str) -> None:
    assert isinstance(plan(stack(body_parts=("CHEST",), words=(words,))), Deface)


@pytest.mark.parametrize(
    "words", ["Left hip, femoral head", "Humeral neck", "Nuclear year", "Surface coil knee", "Abdomen clear"]
)
def test_words_that_only_look_like_a_head_are_none(words: str) -> None:
    assert plan(stack(body_parts=("HIP",), words=(words,))) == Clear(faces.NO_HEAD, "NO")


def test_an_unnamed_part_counts_as_a_head() -> None:
    assert isinstance(plan(stack(body_parts=(), words=("Routine",))), Deface)


def test_a_scan_of_the_whole_body_counts_as_a_head_whatever_its_part() -> None:
    assert isinstance(plan(stack(count=300, step=3.0, body_parts=("CHEST",), words=("Staging",))), Deface)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, faces.LOCALISER),
        ({"image_type": ("DERIVED", "SECONDARY", "VRT")}, faces.RENDERING),
        ({"modality": "PT"}, faces.PET),
        ({"orientation": None}, faces.NOT_A_STACK),
        ({"count": 3, "orientation": SAGITTAL}, faces.PROFILE),
        ({"count": 3, "orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}, faces.TOO_LITTLE),
    ],
)
def test_a_head_that_cannot_be_defaced_is_held(facts: dict[str, object], reason: str) -> None:
    orientation = facts.pop("orientation", AXIAL)
    slices = stack(**facts) if orientation is None else stack(orientation=orientation, **facts)  # type: ignore[arg-type]
    if orientation is None:
        slices = [replace(s, orientation=None) for s in slices]

    assert plan(slices) == Hold(reason)


def test_a_stack_with_a_missing_section_is_held() -> None:
    slices = stack()
    del slices[17]

    assert plan(slices) == Hold(faces.SECTIONS_MISSING)


@pytest.mark.parametrize(("count", "step"), [(5, 2.0), (20, 8.0)])
def test_few_or_thick_cross_sections_are_clear_but_nothing_is_claimed(count: int, step: float) -> None:
    assert plan(stack(count, step)) == Clear(faces.NO_SURFACE, None)


def test_two_echoes_at_each_place_share_one_volume() -> None:
    found = plan([*stack(), *stack()])

    assert isinstance(found, Deface)
    assert found.stack[3] == (3, 43)


def test_a_declaration_counts_only_from_a_de_identified_series() -> None:
    assert plan(stack(declared_without=True)) == Clear(faces.DECLARED, "NO")
    assert geometries(_instance(RecognizableVisualFeatures="NO"))[0].declared_without
    assert not geometries(_instance(RecognizableVisualFeatures="YES"))[0].declared_without
    assert not geometries(_instance())[0].declared_without


@given(st.permutations(range(40)))
def test_the_order_of_instances_does_not_matter(order: list[int]) -> None:
    slices = stack()

    found = plan([slices[i] for i in order])

    assert isinstance(found, Deface)
    assert [order[place[0]] for place in found.stack] == list(range(40))


@given(st.text(max_size=30))
def test_no_description_turns_a_named_head_into_a_clear_claim(words: str) -> None:
    assert not isinstance(plan(stack(words=(words,))), Clear)


def test_an_enhanced_instance_gives_one_geometry_a_frame() -> None:
    ds = _instance()
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PlaneOrientationSequence = Sequence([orientation])
    measures = Dataset()
    measures.PixelSpacing = [0.5, 0.6]
    shared.PixelMeasuresSequence = Sequence([measures])
    frames = []
    for z in range(3):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, float(z)]
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)

    found = geometries(ds)

    assert [g.position for g in found] == [(0.0, 0.0, float(z)) for z in range(3)]
    assert found[0].pixel_spacing == (0.5, 0.6)
    assert found[0].orientation == AXIAL


def test_an_instance_that_says_nothing_of_geometry_is_held() -> None:
    assert plan(geometries(_instance())) == Hold(faces.NOT_A_STACK)


def test_no_instances_are_no_series() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan([])


def _instance(**values: object) -> Dataset:
    ds = Dataset()
    ds.Modality = "MR"
    ds.BodyPartExamined = "BRAIN"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds
