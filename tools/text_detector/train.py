"""Trains the detector of burned-in text on drawn text and writes it as ONNX.

    python -m tools.text_detector.train PICTURES FONTS... --minutes 40 --out text.onnx

PICTURES is a folder of PNG files (backgrounds); NAME.mask.png beside one marks real text, which is not learnt from.
The committed weights saw 30 pictures of pydicom's and pydicom-data's files as a person sees them, 130 chest X-rays
(Kermany et al. 2018), 12 MR slices (Medical Segmentation Decathlon, task 4), two photographs of scikit-learn, and 252
fonts of Debian: some 3,000 steps of 16 crops at first, 6,300 more at a rate of 2e-3 (`--resume`) with more small and
standing letters, and 2,150 at 1.2e-3 with windows on an even ground, step wedges and collimators among what is no text.
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue
import sys
import time
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.text_detector import synthesis

CROP: Final = 192
BATCH: Final = 16
# Heights of letters in pixels, and the share of each range: small ones are missed most.
_SIZES: Final = ((5.5, 13), (5.5, 34), (30, 75))
_SHARES: Final = (0.35, 0.52, 0.13)


def _step(inside: int, outside: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Detector(nn.Module):
    """Where text lines stand.

    Shape: (1, 3, rows, columns), 0..255, both multiples of 16, in; (1, 2, rows / 2, columns / 2) out: box, core, 0..1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _step(3, 16, 2)
        self.quarter = nn.Sequential(_step(16, 24, 2), _step(24, 24))
        self.eighth = nn.Sequential(_step(24, 48, 2), _step(48, 48), _step(48, 48))
        self.sixteenth = nn.Sequential(
            _step(48, 64, 2), _step(64, 64, dilation=2), _step(64, 64, dilation=4), _step(64, 64)
        )
        self.down_16 = nn.Conv2d(64, 48, 1)
        self.merge_8 = _step(48, 48)
        self.down_8 = nn.Conv2d(48, 24, 1)
        self.merge_4 = _step(24, 32)
        self.head = nn.Conv2d(32, 8, 1)

    def logits(self, picture: Tensor) -> Tensor:
        """Return the answer before the sigmoid, which the loss wants."""
        half = self.stem((picture - 110.0) / 70.0)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        deep = self.down_16(self.sixteenth(eighth))
        eighth = self.merge_8(eighth + functional.interpolate(deep, scale_factor=2.0, mode="nearest"))
        quarter = self.merge_4(quarter + functional.interpolate(self.down_8(eighth), scale_factor=2.0, mode="nearest"))
        return functional.pixel_shuffle(self.head(quarter), 2)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the answer, 0..1."""
        return torch.sigmoid(self.logits(picture))


def _pictures(folder: Path) -> list[tuple[synthesis.Pixels, synthesis.Pixels]]:
    found = []
    for path in sorted(folder.glob("*.png")):
        if path.name.endswith(".mask.png"):
            continue
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        mask = path.with_name(path.stem + ".mask.png")
        real = (
            (cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
            if mask.exists()
            else np.zeros(picture.shape[:2], np.uint8)
        )
        found.append((picture, real))
    return found


def _draw(folder: Path, fonts: list[Path], seed: int, out: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    pictures = _pictures(folder)
    lines: list[synthesis.Line] = []
    while True:
        for _ in range(1500 if not lines else 100):
            height = float(np.exp(rng.uniform(*np.log(_SIZES[rng.choice(len(_SIZES), p=_SHARES)]))))
            if (made := synthesis.line(fonts, rng, height)) is not None:
                lines.append(made)
        lines = lines[-6000:]
        for _ in range(15):
            samples = [synthesis.compose(pictures, lines, rng, CROP) for _ in range(BATCH)]
            pixels, answers = (np.stack([getattr(sample, part) for sample in samples]) for part in ("pixels", "answer"))
            out.put((pixels, answers))
            # Drawing costs half as much as learning: each batch serves twice, the second time as a negative, upside
            # down and with red for blue.
            out.put((255 - pixels[:, ::-1, ::-1, ::-1], np.ascontiguousarray(answers[:, ::-1, ::-1])))


def _loss(logits: Tensor, answer: Tensor) -> Tensor:
    truth, seen = answer[:, :2], 1.0 - answer[:, 2:3]
    plain = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # The hardest pixels carry the loss: most of a picture is easy and empty.
    probability = torch.sigmoid(logits)
    focus = (probability - truth).abs() ** 1.5 * 3.0 + 0.1
    weight = (1.0 + 2.0 * truth) * seen
    overlap = (probability * truth * seen).sum((0, 2, 3))
    total = ((probability + truth) * seen).sum((0, 2, 3))
    return (plain * focus.detach() * weight).mean() * 2.0 + (1.0 - (2 * overlap + 1) / (total + 1)).mean()


def main() -> None:
    """Train until the time is up; write the network whenever ten minutes have passed and at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("fonts", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=3e-3)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    batches: multiprocessing.Queue = multiprocessing.Queue(6)  # type: ignore[type-arg]
    multiprocessing.Process(target=_draw, args=(given.pictures, given.fonts, given.seed, batches), daemon=True).start()
    model = Detector().to(memory_format=torch.channels_last)
    if given.resume:
        model.load_state_dict(torch.load(given.resume, weights_only=True))
    optimiser = torch.optim.AdamW(model.parameters(), lr=given.rate, weight_decay=1e-4)
    begin, told, saved, step, mean = time.monotonic(), 0.0, 0.0, 0, 0.0
    while (spent := time.monotonic() - begin) < given.minutes * 60:
        part = spent / (given.minutes * 60)
        for group in optimiser.param_groups:
            group["lr"] = given.rate * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * part)))
        try:
            pixels, answers = batches.get(timeout=120)
        except queue.Empty:
            break
        picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
        answer = functional.avg_pool2d(torch.from_numpy(answers).permute(0, 3, 1, 2).float(), 2)
        loss = _loss(model.logits(picture), answer)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step, mean = step + 1, 0.98 * mean + 0.02 * float(loss.detach())
        if spent - told > 20:
            told = spent
            sys.stdout.write(
                f"{spent:6.0f} s  step {step}  loss {mean / (1 - 0.98**step):.4f}  waiting {batches.qsize()}\n"
            )
            sys.stdout.flush()
        if spent - saved > 240:
            saved = spent
            write(model, given.out)
    write(model, given.out)


def write(model: Detector, out: Path) -> None:
    """Write the weights beside `out` and the network with free picture size as ONNX."""
    torch.save(model.state_dict(), out.with_suffix(".pt"))
    model.eval()
    example = torch.zeros(1, 3, 64, 64)
    torch.onnx.export(
        model,
        (example,),
        str(out),
        input_names=["picture"],
        output_names=["text"],
        dynamo=False,
        opset_version=17,
        dynamic_axes={"picture": {0: "n", 2: "rows", 3: "columns"}, "text": {0: "n", 2: "r", 3: "c"}},
    )
    model.train()


if __name__ == "__main__":
    main()
