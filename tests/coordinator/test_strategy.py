"""Rounds with misbehaving members: each bad answer is dropped with its reason, and the others make the model."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from coordinator.errors import RunFailed
from coordinator.runs import describe
from coordinator.store import open_store
from models import WeightedMean, layout_bytes, layout_of, model_digest
from tests.federation import STATE, STUDIES, UNTRAINED, Federation, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FAULTS: dict[str, tuple[Callable[[Site], None], tuple[str, str]]] = {
    "replays its last update": (Site.replay_last_update, ("refused", "another-round")),
    "names another base model": (lambda site: site.claims(base_model="0" * 64), ("refused", "another-base-model")),
    "names another nonce": (lambda site: site.claims(nonce="guessed"), ("refused", "another-nonce")),
    "speaks for another site": (lambda site: site.claims(site="west"), ("refused", "another-site")),
    "breaks its chain": (lambda site: site.claims(prev="7" * 64), ("refused", "receipt-chain-broken")),
    "signs other bytes": (lambda site: site.claims(update="c" * 64), ("refused", "update-differs-from-receipt")),
    "forges the signature": (Site.forged_signature, ("refused", "receipt-bad-signature")),
    "has too few studies": (Site.too_few, ("refused", "too-few-studies")),
    "sends no number": (
        lambda site: site.sends(float32=np.full(6, np.nan, np.float32)),
        ("refused", "non-finite"),
    ),
    "sends another shape": (lambda site: site.sends(float32=np.zeros(7, np.float32)), ("refused", "shape")),
    "sends one array more": (lambda site: site.sends(float64=np.zeros(1)), ("refused", "array-set")),
    "moves too far": (lambda site: site.sends(float32=np.full(6, 1e6, np.float32)), ("refused", "norm")),
    "reports another metric": (lambda site: site.reports(patients=17.0), ("refused", "malformed")),
    "reports an infinite loss": (
        lambda site: site.fault.__class__ and site.claims(update="c" * 64) or site.reports(train_loss=float("inf")),
        ("refused", "non-finite"),
    ),
    "answers with an error": (Site.fails, ("abstained", "")),
    "is silent": (Site.silent, ("absent", "no answer before the deadline")),
}
