"""Training and evaluation with PyTorch and MONAI; the only part of `models` that imports them."""
