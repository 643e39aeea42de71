"""A finished model as the files of a MONAI bundle: weights, metadata, and a runnable inference.

Only bytes are made here; the caller writes them. The inference needs MONAI and PyTorch, but nothing
of this project.
Source: MONAI bundle specification (docs.monai.io, mb_specification); the configuration syntax of
    MONAI 1.6.1.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from models.checkpoint import checkpoint_bytes
from models.components import NETWORKS, TRANSFORMS, for_image_alone
from models.task import class_count, task_digest
from models.update import layout_digest, model_digest, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.components import Component as Installed
    from models.task import Component, Task
    from models.update import Arrays, Layout

# The versions the inference is tested with (MONAI), and the oldest it is meant for (the others).
MONAI_VERSION: Final = "1.6.1"
PYTORCH_VERSION: Final = "2.6.0"
NUMPY_VERSION: Final = "2.0.0"
PACKAGES: Final = {"fire": "0.7.0", "nibabel": "5.3.0", "pydicom": "3.0.0"}
BUNDLE_VERSION: Final = "1.0.0"
# The same weights, of which less may be said.
WITHDRAWN_VERSION: Final = "1.0.1"
CONTAINS_WITHDRAWN: Final = "contains a withdrawn contribution"
SCHEMA: Final = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)

# How a site stores pixels, by the direction each axis grows in: a slice is (row, column), rows
# to posterior and columns to left, as axial DICOM is; a volume is (slice, row, column). A
# two-dimensional network takes one slice after another along the last axis of "PLS".
AXES: Final[Mapping[int, str]] = {2: "PLS", 3: "SPL"}


def bundle_files(
    task: Task,
    arrays: Arrays,
    layout: Layout,
    provenance: Mapping[str, Any],
    *,
    contains_withdrawn: bool = False,
) -> dict[str, bytes]:
    """Give every file of the bundle by its path below the bundle's folder.

    `arrays` are the packed weights; `provenance` is written as it is. The bundle says so where it
    contains what a site has withdrawn.

    Raises: UpdateRefused if the arrays do not fit the layout.
    """
    digests = {
        "task": task_digest(task),
        "layout": layout_digest(layout),
        "model": model_digest(arrays),
    }
    return {
        "LICENSE": _LICENSE.format(project=task.project).encode(),
        "configs/inference.json": _json(_inference(task)),
        "models/model.pt": checkpoint_bytes(unpack(arrays, layout)),
        **bundle_texts(task, digests, provenance, contains_withdrawn=contains_withdrawn),
    }


def bundle_texts(
    task: Task, digests: Mapping[str, str], provenance: Mapping[str, Any], *, contains_withdrawn: bool
) -> dict[str, bytes]:
    """Give the files of the bundle that tell of a withdrawal, by path; `digests` by what they are of."""
    return {
        "configs/metadata.json": _json(_metadata(task, contains_withdrawn=contains_withdrawn)),
        "docs/README.md": _readme(task, digests, contains_withdrawn=contains_withdrawn).encode(),
        "docs/provenance.json": _json(provenance),
    }


def _json(value: object) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _metadata(task: Task, *, contains_withdrawn: bool) -> dict[str, Any]:
    versions = {BUNDLE_VERSION: "the last round of the project's run"}
    if contains_withdrawn:
        versions[WITHDRAWN_VERSION] = CONTAINS_WITHDRAWN
    return {
        "schema": SCHEMA,
        "version": max(versions),
        "changelog": versions,
        "monai_version": MONAI_VERSION,
        "pytorch_version": PYTORCH_VERSION,
        "numpy_version": NUMPY_VERSION,
        "required_packages_version": PACKAGES,
        "name": task.name,
        "task": task.title,
        "description": task.purpose.description or task.title,
        "intended_use": ", ".join(task.purpose.purposes),
        "authors": f"the participants of {task.project}",
        "copyright": f"the participants of {task.project}",
        "network_data_format": {
            "inputs": {"image": _input_format(task)},
            "outputs": {"pred": _output_format(task)},
        },
    }


def _input_format(task: Task) -> dict[str, Any]:
    channels = task.network.arguments["in_channels"]
    return {
        "type": "image",
        "format": "hounsfield" if task.input.modality == "CT" else "magnitude",
        "modality": task.input.modality,
        "num_channels": channels,
        "spatial_shape": ["*"] * task.input.spatial_dims,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(channel): "image" for channel in range(int(str(channels)))},
    }


def _output_format(task: Task) -> dict[str, Any]:
    names = {str(label.value): label.name for label in task.labels}
    segments = task.kind == "segmentation"
    return {
        "type": "image" if segments else "probabilities",
        "format": "labels" if segments else "classes",
        "modality": "n/a",
        "num_channels": class_count(task),
        "spatial_shape": ["*"] * task.input.spatial_dims if segments else [1],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "background", **names} if segments else names,
    }


def _inference(task: Task) -> dict[str, Any]:
    """Give the inference as MONAI's configuration: a table of named parts and expressions."""
    network = _target(NETWORKS[task.network.name], task.network.arguments)
    return {
        "imports": ["$import glob", "$import json", "$import os", "$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/predictions'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*')))",
        "network_def": network,
        "network": "$@network_def.to(@device).eval()",
        "load": _compose(
            {"_target_": "LoadImaged", "keys": ["image"]},
            {"_target_": "EnsureChannelFirstd", "keys": ["image"]},
            {
                "_target_": "Orientationd",
                "keys": ["image"],
                "axcodes": AXES[task.input.spatial_dims],
                "labels": [["L", "R"], ["P", "A"], ["I", "S"]],
            },
        ),
        "preprocessing": _compose(*map(_transform, task.transforms.evaluate)),
        "postprocessing": _postprocessing(task),
        **_KIND[task.kind],
        "predict": _PREDICT[task.kind, task.input.spatial_dims],
        "initialize": [_LOAD_WEIGHTS, "$os.makedirs(@output_dir, exist_ok=True)"],
    }


def _postprocessing(task: Task) -> dict[str, Any]:
    """Give what turns class scores into labels and undoes what moved pixels."""
    spatial = any(TRANSFORMS[chosen.name].spatial for chosen in task.transforms.evaluate)
    undo = {
        "_target_": "Invertd",
        "keys": ["pred"],
        "orig_keys": ["image"],
        "transform": "@preprocessing",
        "nearest_interp": True,
    }
    labels = {"_target_": "AsDiscreted", "keys": ["pred"], "argmax": True}
    return _compose(labels, *([undo] if spatial else []))


def _target(installed: Installed, arguments: Mapping[str, object]) -> dict[str, Any]:
    return {"_target_": installed.path.replace(":", "."), **arguments}


def _transform(chosen: Component) -> dict[str, Any]:
    return _target(TRANSFORMS[chosen.name], for_image_alone(chosen.arguments))


def _compose(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


_LOAD_WEIGHTS: Final = (
    "$@network_def.load_state_dict(torch.load(os.path.join(@bundle_root, 'models', 'model.pt'), "
    "weights_only=True, map_location=@device))"
)
_LOGITS: Final = "@network(data['image'][None].to(@device))[0].cpu()"

# `one` handles what the network sees at a time; `predict` a whole file; `run` all files.
_SEGMENTATION: Final[Mapping[str, Any]] = {
    "one": (
        "$lambda image: (lambda data: @postprocessing({**data, 'pred': " + _LOGITS + "})['pred']"
        ".as_tensor())(@preprocessing({'image': image}))"
    ),
    "restore": (
        "$lambda pred, image: @load.inverse({'image': monai.data.MetaTensor(pred, meta=image.meta, "
        "applied_operations=image.applied_operations)})['image']"
    ),
    "save": {
        "_target_": "SaveImage",
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "output_dtype": "$np.uint8",
        "resample": False,
        "separate_folder": False,
        "print_log": False,
    },
    "run": [
        (
            "$torch.no_grad()(lambda: [@save(@restore(@predict(image), image)) "
            "for image in (@load({'image': path})['image'] for path in @datalist)])()"
        )
    ],
}
_CLASSIFICATION: Final[Mapping[str, Any]] = {
    "one": ("$lambda image: (lambda data: " + _LOGITS + ".softmax(0).tolist())(@preprocessing({'image': image}))"),
    "run": [
        (
            "$torch.no_grad()(lambda: pathlib.Path(@output_dir, 'predictions.json').write_text("
            "json.dumps({os.path.basename(path): @predict(@load({'image': path})['image']) "
            "for path in @datalist}, indent=1)))()"
        )
    ],
}
_KIND: Final = {"segmentation": _SEGMENTATION, "classification": _CLASSIFICATION}

# A file of one slice may lack the slice axis.
_SLICES: Final = "(image if image.ndim == 4 else image[..., None]).unbind(-1)"
_PREDICT: Final[Mapping[tuple[str, int], str]] = {
    ("segmentation", 2): (
        "$lambda image: torch.stack([@one(each) for each in " + _SLICES + "], -1).reshape(1, *image.shape[1:])"
    ),
    ("segmentation", 3): "$@one",
    ("classification", 2): "$lambda image: [@one(each) for each in " + _SLICES + "]",
    ("classification", 3): "$lambda image: [@one(image)]",
}

_LICENSE: Final = """\
The use of these weights is governed by the agreement of the project "{project}" between its
participants. No other right is granted by this file. The configuration files may be used under the
Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
"""


def _readme(task: Task, digests: Mapping[str, str], *, contains_withdrawn: bool) -> str:
    labels = "\n".join(f"| {label.value} | {label.name} |" for label in task.labels)
    names = "\n".join(f"- {name}: `{digest}`" for name, digest in digests.items())
    result = _RESULT[task.kind]
    withdrawn = _WITHDRAWN if contains_withdrawn else ""
    return _README.format(
        task=task, labels=labels, digests=names, result=result, monai=MONAI_VERSION, withdrawn=withdrawn
    )


_RESULT: Final = {
    "segmentation": "one NIfTI label map for each input, `…_seg.nii.gz`, on the input's own grid",
    "classification": "`predictions.json`: for each input, the class probabilities of each slice",
}
_WITHDRAWN: Final = f"""\
**This model {CONTAINS_WITHDRAWN}.** The permission for some of what it was trained or measured on
was taken back after the fact. Nothing was subtracted: the weights are those of before. Whether and how
it may still be used is for the project's agreement to say.

"""
_README: Final = """\
# {task.title}

{withdrawn}Trained for the project "{task.project}" by federated averaging: the images stayed in the hospitals
that hold them. `docs/provenance.json` records how the weights came about.

Not a medical device. Check it on your own images before you rely on it.

## Use

Put NIfTI files, or folders that each hold one DICOM series, into `images`, then run

    pip install "monai[fire,nibabel,pydicom]=={monai}"
    python -m monai.bundle run --config_file configs/inference.json --bundle_root .

`--dataset_dir` and `--output_dir` name other folders. The result is {result}.

The network reads {task.input.modality} images in {task.input.spatial_dims} dimensions. Slices are
taken for axial ones, with the patient's front at the top.

## Labels

| value | meaning |
|---|---|
{labels}

## Digests (SHA-256)

{digests}
"""
