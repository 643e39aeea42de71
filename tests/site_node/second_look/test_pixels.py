"""What stands in the pixels is read by another program."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.uid import EncapsulatedPDFStorage

from site_node.errors import ConfigurationError
from site_node.second_look.inspection import Hit, inspect
from site_node.second_look.pixels import PROGRAM, Reader
from tests.site_node.second_look.files import NAME, cleaned, original, written

needs_reader = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="tesseract is not installed")


def _drawn(text: str) -> bytes:
    image = Image.new("L", (256, 256), 20)
    ImageDraw.Draw(image).text((20, 110), text, fill=230, font=ImageFont.load_default(22))
    return np.asarray(image, "<u2").tobytes()


def _image(text: str) -> dict[str, object]:
    return {"Rows": 256, "Columns": 256, "PixelData": _drawn(text)}


@needs_reader
@pytest.mark.parametrize(("text", "kind"), [(NAME.upper(), "name"), ("77304412", "identifier"), ("17.04.1961", "date")])
def test_what_stands_in_the_pixels_is_read(text: str, kind: str) -> None:
    source, output = written(original(**_image(text))), written(cleaned(**_image(text)))
    assert Hit("pixels", kind) in inspect(source, output, read_pixels=True)
    assert inspect(source, output) == ()


@needs_reader
def test_harmless_words_in_the_pixels_are_no_hit() -> None:
    source, output = written(original(**_image("HEAD AX T2 5 mm"))), written(cleaned(**_image("HEAD AX T2 5 mm")))
    assert inspect(source, output, read_pixels=True) == ()


@needs_reader
def test_the_pages_of_a_document_are_read() -> None:
    page = io.BytesIO()
    image = Image.new("L", (1240, 600), 255)
    ImageDraw.Draw(image).text((60, 110), NAME.upper(), fill=0, font=ImageFont.load_default(30))
    Image.new("L", (1240, 600), 255).save(page, "PDF", resolution=150, save_all=True, append_images=[image])
    about = {"SOPClassUID": EncapsulatedPDFStorage, "EncapsulatedDocument": page.getvalue()}
    source, output = written(original(**about)), written(cleaned(**about))
    assert Hit("pixels", "name") in inspect(source, output, read_pixels=True)
    assert inspect(source, output) == ()
    damaged = written(cleaned(SOPClassUID=EncapsulatedPDFStorage, EncapsulatedDocument=b"%PDF-1.4 damaged"))
    assert inspect(source, damaged, read_pixels=True) == (Hit("output", "unreadable"),)


def test_without_a_reader_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match=PROGRAM):
        Reader()
