"""Photographs: what is held, and what a rebuilt file no longer carries.

`portrait.jpg` is a corner of NASA's portrait of Eileen Collins (public domain), as scikit-image has it.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import uid
from pydicom.dataset import Dataset

from site_node.deidentify import visible_light
from site_node.deidentify.visible_light import Clear, Held, faces, rebuild, screen
from site_node.errors import UnreadableInstance

View = npt.NDArray[np.uint8]
PORTRAIT = Path(__file__).parents[2] / "vectors" / "portrait.jpg"


def instance(sop_class: str, **values: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = sop_class
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW"])
def test_a_slides_label_is_held(kind: str) -> None:
    ds = instance(uid.VLWholeSlideMicroscopyImageStorage, ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"])

    assert screen(ds) == Held(visible_light.SLIDE_LABEL)


def test_a_slide_that_shows_its_label_is_held() -> None:
    ds = instance(uid.VLWholeSlideMicroscopyImageStorage, SpecimenLabelInImage="YES")

    assert screen(ds) == Held(visible_light.SLIDE_LABEL)


def test_a_slides_tissue_is_clear_without_a_search_for_faces() -> None:
    ds = instance(uid.VLWholeSlideMicroscopyImageStorage, ImageType=["DERIVED", "PRIMARY", "VOLUME", "NONE"])

    assert screen(ds) == Clear(look=False)


def test_a_photograph_of_a_named_head_is_held_and_of_a_hand_is_looked_at() -> None:
    assert screen(instance(uid.VLPhotographicImageStorage, BodyPartExamined="FACE")) == Held(visible_light.HEAD)
    assert screen(instance(uid.VLPhotographicImageStorage, BodyPartExamined="HAND")) == Clear(look=True)


def test_what_is_no_photograph_is_held() -> None:
    assert screen(instance(uid.CTImageStorage)) == Held(visible_light.NOT_A_PHOTOGRAPH)


@pytest.mark.parametrize("turns", range(4))
def test_a_face_is_found_whichever_way_it_lies(turns: int) -> None:
    view = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    canvas = np.zeros((300, 420, 3), np.uint8)
    canvas[100:260, 200:360] = np.rot90(view, turns)

    found = faces(canvas)

    assert found
    for box in found:
        middle = ((box.top + box.bottom) / 2, (box.left + box.right) / 2)
        assert 100 < middle[0] < 260
        assert 200 < middle[1] < 360


@pytest.mark.parametrize("seed", range(3))
def test_tissue_like_pictures_show_no_face(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 12, 3), np.uint8)

    assert faces(np.asarray(Image.fromarray(coarse).resize((300, 260), Image.Resampling.BICUBIC))) == ()


def test_a_grey_and_a_tiny_picture_can_be_looked_at() -> None:
    assert faces(np.zeros((8, 8), np.uint8)) == ()
    assert faces(np.asarray(Image.open(PORTRAIT).convert("L"))) != ()


SECRET = b"Zebedee Quorn"


def jpeg(picture: View, orientation: int = 1) -> bytes:
    image, out = Image.fromarray(picture), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x013B], exif[0x010E] = orientation, SECRET.decode(), SECRET.decode()
    image.save(out, "JPEG", exif=exif, comment=SECRET, quality=95)
    # XMP and IPTC stand in application segments of their own; a trailer may follow the image.
    segments = b"".join(
        marker + struct.pack(">H", len(body) + 2) + body
        for marker, body in (
            (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + SECRET),
            (b"\xff\xed", b"Photoshop 3.0\0" + SECRET),
        )
    )
    data = out.getvalue()
    return data[:2] + segments + data[2:] + SECRET


def test_a_rebuilt_jpeg_carries_nothing_beside_its_pixels() -> None:
    picture = np.asarray(Image.open(PORTRAIT).convert("RGB"))

    result = rebuild(jpeg(picture))

    assert SECRET not in result.data
    assert (result.format, result.lossy_again) == ("JPEG", True)
    again = Image.open(io.BytesIO(result.data))
    assert set(again.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert np.abs(np.asarray(again).astype(int) - picture).mean() < 4


def test_the_cameras_orientation_is_applied_before_its_tag_goes() -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :20] = 255

    result = rebuild(jpeg(picture, orientation=6))  # turned a quarter clockwise

    shown = np.asarray(Image.open(io.BytesIO(result.data)).convert("L"))
    assert shown.shape == (80, 40)
    assert shown[:15].mean() > 240
    assert shown[30:].mean() < 15


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["L", "RGB", "RGBA", "P", "1"]),
    st.sampled_from(["PNG", "TIFF"]),
)
def test_lossless_files_keep_every_pixel(rows: int, columns: int, mode: str, kind: str) -> None:
    values = np.random.default_rng(rows).integers(0, 256, (rows, columns, 3), np.uint8)
    image, out = Image.fromarray(values).convert(mode), io.BytesIO()
    notes = PngInfo()
    notes.add_text("Comment", SECRET.decode())
    image.save(out, kind, **({"pnginfo": notes} if kind == "PNG" else {"description": SECRET.decode()}))

    result = rebuild(out.getvalue())

    assert SECRET not in result.data
    assert not result.lossy_again
    shown = "L" if mode in {"L", "1"} else "RGB"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(result.data))), np.asarray(image.convert(shown)))


def test_what_was_transparent_does_not_come_back() -> None:
    values = np.full((20, 20, 4), 200, np.uint8)
    values[5:10, 5:10, 3] = 0
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")

    shown = np.asarray(Image.open(io.BytesIO(rebuild(out.getvalue()).data)))

    assert not shown[5:10, 5:10].any()


@pytest.mark.parametrize("data", [b"", b"Zebedee Quorn", b"\x89PNG\r\n\x1a\n", b"GIF89a", PORTRAIT.read_bytes()[:400]])
def test_what_is_no_whole_picture_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(UnreadableInstance) as caught:
        rebuild(data)

    assert "Zebedee" not in str(caught.value)


def test_a_picture_beyond_the_bound_is_refused() -> None:
    out = io.BytesIO()
    Image.new("L", (3000, 3000)).save(out, "PNG")

    with pytest.raises(UnreadableInstance, match="too large"):
        rebuild(out.getvalue(), most_pixels=1_000_000)
