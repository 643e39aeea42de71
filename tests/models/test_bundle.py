"""The finished bundle, read and run by MONAI itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle.scripts import run
from monai.networks.nets.densenet import DenseNet121
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from models.bundle import MONAI_VERSION, bundle_files, bundle_texts
from models.errors import UpdateRefused
from models.learning.build import build_network, network_state
from models.learning.evaluate import predict
from models.task import Task, parse_task
from models.update import pack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

Document = dict[str, Any]

# MONAI warns that a configuration is a program, and that an optional GPU decoder is absent.
pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
    pytest.mark.filterwarnings("ignore:axcodes:UserWarning"),
]
SLICES = 3


def write_bundle(task: Task, folder: Path) -> nn.Module:
    network = build_network(task)
    layout, state = network_state(network)
    files = bundle_files(task, pack(state), layout, {"rounds": [{"round": 1, "sites": 2}]})
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "images").mkdir()
    return network


def run_bundle(folder: Path) -> Path:
    run(
        run_id="run",
        init_id="initialize",
        config_file=str(folder / "configs" / "inference.json"),
        meta_file=str(folder / "configs" / "metadata.json"),
        bundle_root=str(folder),
    )
    return folder / "predictions"


def task_of(document: Document) -> Task:
    return parse_task(json.dumps(document).encode())


def volume(rows: int, columns: int) -> NDArray[np.uint16]:
    """Give an image as (row, column, slice)."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 1000, (rows, columns, SLICES), "uint16")


def write_nifti(path: Path, image: NDArray[Any]) -> None:
    """Write axial slices: NIfTI's first axis is the column, which grows to the left."""
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    stored = image.transpose(1, 0, 2).astype("float32")
    nib.save(nib.Nifti1Image(stored, affine), path)  # type: ignore[no-untyped-call]  # nibabel is untyped there


def write_dicom_series(folder: Path, image: NDArray[np.uint16]) -> None:
    folder.mkdir()
    series = generate_uid()
    for number in range(image.shape[2]):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID = series
        ds.Modality, ds.InstanceNumber = "MR", number + 1
        ds.Rows, ds.Columns = image.shape[:2]
        ds.PixelSpacing, ds.SliceThickness = [2, 2], 3
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [0, 0, 3 * number]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = np.ascontiguousarray(image[:, :, number]).tobytes()
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def predicted(network: nn.Module, task: Task, image: NDArray[Any]) -> NDArray[Any]:
    slices = [image[None, :, :, k].astype("float32") for k in range(image.shape[2])]
    return np.stack([predict(network, task, each) for each in slices], axis=-1)


def saved_map(path: Path) -> NDArray[Any]:
    """Give a written label map as (row, column, slice)."""
    return np.asarray(nib.load(path).dataobj).transpose(1, 0, 2)  # type: ignore[attr-defined]  # nibabel's base image lacks it


def test_the_bundle_segments_nifti_files_as_the_sites_do(segmentation_task: Task, tmp_path: Path) -> None:
    network = write_bundle(segmentation_task, tmp_path)
    image = volume(24, 16)
    write_nifti(tmp_path / "images" / "a.nii.gz", image)

    output = run_bundle(tmp_path)

    written = nib.load(output / "a_seg.nii.gz")
    np.testing.assert_array_equal(written.affine, np.diag([-2.0, -2.0, 3.0, 1.0]))  # type: ignore[attr-defined]  # as above
    expected = predicted(network, segmentation_task, image)
    np.testing.assert_array_equal(saved_map(output / "a_seg.nii.gz"), expected)


def test_the_bundle_segments_a_folder_with_a_dicom_series_as_the_sites_do(
    segmentation_task: Task, tmp_path: Path
) -> None:
    network = write_bundle(segmentation_task, tmp_path)
    image = volume(24, 16)
    write_dicom_series(tmp_path / "images" / "series", image)

    (path,) = run_bundle(tmp_path).iterdir()

    expected = predicted(network, segmentation_task, image)
    np.testing.assert_array_equal(saved_map(path), expected)


def test_label_maps_come_back_on_the_grid_of_the_input(segmentation: Document, tmp_path: Path) -> None:
    resize = {
        "name": "Resized",
        "arguments": {
            "keys": ["image", "label"],
            "spatial_size": [32, 32],
            "mode": ["bilinear", "nearest"],
        },
    }
    segmentation["transforms"]["evaluate"].append(resize)
    write_bundle(task_of(segmentation), tmp_path)
    write_nifti(tmp_path / "images" / "a.nii.gz", volume(24, 18))

    output = run_bundle(tmp_path)

    assert saved_map(output / "a_seg.nii.gz").shape == (24, 18, SLICES)


def test_the_bundle_of_a_volume_network_sees_slices_first(segmentation: Document, tmp_path: Path) -> None:
    segmentation["input"]["spatial_dims"] = segmentation["network"]["arguments"]["spatial_dims"] = 3
    segmentation["transforms"] = {}
    task = task_of(segmentation)
    network = write_bundle(task, tmp_path)
    image = np.concatenate([volume(8, 12), volume(8, 12)[:, :, :1]], axis=2)
    write_nifti(tmp_path / "images" / "a.nii.gz", image)

    output = run_bundle(tmp_path)

    slices_first = predict(network, task, image.transpose(2, 0, 1)[None].astype("float32"))
    expected = slices_first.transpose(1, 2, 0)
    np.testing.assert_array_equal(saved_map(output / "a_seg.nii.gz"), expected)


def test_the_bundle_of_a_classification_writes_probabilities(classification_task: Task, tmp_path: Path) -> None:
    write_bundle(classification_task, tmp_path)
    write_nifti(tmp_path / "images" / "a.nii.gz", volume(64, 64))

    output = run_bundle(tmp_path)

    found = json.loads((output / "predictions.json").read_text())
    assert found.keys() == {"a.nii.gz"}
    np.testing.assert_allclose(np.sum(found["a.nii.gz"], axis=1), np.ones(SLICES), rtol=1e-5)


def test_the_weights_load_into_monais_own_densenet(classification: Document, tmp_path: Path) -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    classification["network"]["arguments"] = arguments
    network = write_bundle(task_of(classification), tmp_path)
    other = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)

    other.load_state_dict(torch.load(tmp_path / "models" / "model.pt", weights_only=True))

    loaded = other.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_the_metadata_has_what_the_specification_demands(segmentation_task: Task, tmp_path: Path) -> None:
    write_bundle(segmentation_task, tmp_path)
    metadata = json.loads((tmp_path / "configs" / "metadata.json").read_text())
    formats = metadata["network_data_format"]

    # MONAI bundle specification, "metadata.json File": the mandatory keys.
    assert metadata.keys() >= {
        *("version", "monai_version", "pytorch_version", "numpy_version", "task", "description"),
        *("required_packages_version", "authors", "copyright", "network_data_format"),
    }
    for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        assert tensor.keys() == {
            *("type", "format", "modality", "num_channels", "spatial_shape", "dtype"),
            *("value_range", "is_patch_data", "channel_def"),
        }
        assert len(tensor["channel_def"]) == tensor["num_channels"]
    assert formats["outputs"]["pred"]["channel_def"] == {
        "0": "background",
        "1": "grey matter",
        "2": "white matter",
    }


def test_the_bundle_names_the_monai_version_it_is_tested_with() -> None:
    assert monai.__version__ == MONAI_VERSION


def test_the_bundle_carries_its_papers(segmentation_task: Task, tmp_path: Path) -> None:
    write_bundle(segmentation_task, tmp_path)

    provenance = json.loads((tmp_path / "docs" / "provenance.json").read_text())
    assert provenance == {"rounds": [{"round": 1, "sites": 2}]}
    assert "tissue-2026" in (tmp_path / "LICENSE").read_text()
    readme = (tmp_path / "docs" / "README.md").read_text()
    assert "| 2 | white matter |" in readme
    assert "Not a medical device" in readme


def test_a_bundle_says_that_it_contains_a_withdrawn_contribution_and_no_other_does(segmentation_task: Task) -> None:
    texts = {
        said: bundle_texts(segmentation_task, {"model": "0" * 64}, {}, contains_withdrawn=said)
        for said in (True, False)
    }

    for path in ("docs/README.md", "configs/metadata.json"):
        assert [b"contains a withdrawn contribution" in texts[said][path] for said in (True, False)] == [True, False]
    versions = [json.loads(texts[said]["configs/metadata.json"])["version"] for said in (True, False)]
    assert versions == ["1.0.1", "1.0.0"]


def test_arrays_that_do_not_fit_the_layout_make_no_bundle(segmentation_task: Task) -> None:
    layout, state = network_state(build_network(segmentation_task))
    packed = pack(state)

    with pytest.raises(UpdateRefused):
        bundle_files(segmentation_task, packed | {"float32": packed["float32"][1:]}, layout, {})
