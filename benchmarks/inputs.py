"""What every contender trains on: three hospitals' images of a disk in noise, their consents, and the task.

Equal seeds give equal bytes. The pixels have nothing to do with medicine; they are small, and a network can learn them.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SITES: Final = ("north", "east", "west")
IMAGES: Final = 64
SIDE: Final = 64
CONSENTS: Final = 10_000
ROUNDS: Final = 5
BATCH: Final = 16
LEARNING_RATE: Final = 1e-3
SEED: Final = 7
# Disk radii in pixels by class; a quarter of the grey range is noise.
_RADII: Final = (8, 20)
_LEVEL, _NOISE = 1200, 300
_UID_ROOT: Final = "2.25.4711"
_V3_ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

TASK: Final[dict[str, Any]] = {
    "format": "filmroom-task/1",
    "name": "benchmark-disks",
    "title": "Small or large disk",
    "project": "benchmark",
    "kind": "classification",
    "purpose": {
        "purposes": ["HRESCH"],
        "research": "health",
        "ancestry": False,
        "clinical_care": False,
        "commercial": False,
        "for_profit": False,
        "methods_development": True,
    },
    "input": {"modality": "MR", "spatial_dims": 2},
    "labels": [{"value": 0, "name": "small disk"}, {"value": 1, "name": "large disk"}],
    "network": {"name": "DenseNet121", "arguments": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}},
    "loss": {"name": "CrossEntropyLoss"},
    "optimiser": {"name": "Adam", "arguments": {"lr": LEARNING_RATE}},
    "metrics": ["accuracy"],
    "rounds": ROUNDS,
    "local_epochs": 1,
    "batch_size": BATCH,
    "seed": SEED,
    "validation_fraction": 0.0,
    "strategy": {"name": "FedAvg", "quorum": len(SITES), "deadline_s": 300, "max_update_norm": 1e9},
}


@dataclass(frozen=True, slots=True)
class Images:
    """One site's training set.

    Shape: images `(example, row, column)` uint16, twelve bits used; labels `(example,)`, 0 or 1.
    """

    images: NDArray[np.uint16]
    labels: NDArray[np.int64]


def make_images(place: int) -> Images:
    """Give the images of the site with this place in `SITES`."""
    rng = np.random.default_rng((SEED, place))
    labels = np.arange(IMAGES) % len(_RADII)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    drawn = []
    for label in labels:
        row, column = rng.integers(SIDE // 3, 2 * SIDE // 3, 2)
        disk = (rows - row) ** 2 + (columns - column) ** 2 <= _RADII[label] ** 2
        drawn.append(np.clip(disk * _LEVEL + rng.normal(_LEVEL, _NOISE, disk.shape), 0, 4095))
    return Images(np.array(drawn).astype(np.uint16), labels.astype(np.int64))


def write_site(name: str, images: Images, folder: Path, since: str) -> None:
    """Write a site's DICOM files, class labels (CSV) and consents (NDJSON) below `folder`.

    `since` is when the consents were signed, a FHIR dateTime.
    """
    (folder / "dicom").mkdir(parents=True)
    for number, pixels in enumerate(images.images):
        _instance(name, number, pixels).save_as(folder / "dicom" / f"{number:03d}.dcm", enforce_file_format=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["SOPInstanceUID", "label"])
        rows.writerows((_uid(name, number, 3), label) for number, label in enumerate(images.labels))
    with (folder / "consents.ndjson").open("w") as file:
        file.writelines(f"{line}\n" for line in _consents(name, since))


def _instance(site: str, number: int, pixels: NDArray[np.uint16]) -> Dataset:
    """Give an MR image of one study of one patient."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, _uid(site, number, 3)
    ds.PatientName, ds.PatientID = f"Bench^{number}", _patient(site, number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(site, number, 1), _uid(site, number, 2)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260301"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.Modality, ds.BodyPartExamined = "MR", "KNEE"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    ds.BurnedInAnnotation = ds.RecognizableVisualFeatures = "NO"
    ds.SeriesNumber = ds.InstanceNumber = "1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.astype("<u2").tobytes()
    return ds


def _consents(site: str, since: str) -> Iterator[str]:
    """Give one FHIR R4 Consent for research for each patient of the hospital, imaged or not."""
    for number in range(CONSENTS):
        yield json.dumps(
            {
                "resourceType": "Consent",
                "id": f"{site}-{number}",
                "status": "active",
                "scope": {
                    "coding": [
                        {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"},
                    ],
                },
                "category": [{"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}],
                "patient": {"identifier": {"value": _patient(site, number)}},
                "dateTime": since,
                "policy": [{"uri": "https://example.org/policies/research-on-images"}],
                "provision": {"type": "permit", "purpose": [{"system": _V3_ACT_REASON, "code": "HRESCH"}]},
            },
        )


def _patient(site: str, number: int) -> str:
    return f"{site}-{number:05d}"


def _uid(site: str, number: int, level: int) -> str:
    return f"{_UID_ROOT}.{SITES.index(site) + 1}.{number + 1}.{level}"
