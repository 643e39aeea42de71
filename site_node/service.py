"""Runs the site node: takes part in the federation's rounds.

Beside that it reads the consents of the hospital's FHIR server, where one is configured. A coordinator that cannot be
reached is tried again with growing pauses; one that does not know this site as a member ends the node. One node runs in
a folder at a time.
"""

from __future__ import annotations

import fcntl
import gc
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import fhir_server, release
from site_node.app import fetch_consents, now
from site_node.errors import ConfigurationError, NotAMember, PeerError, SiteError
from site_node.gate import Gate
from site_node.keys import read_signing_key
from site_node.lineage import Notices
from site_node.rounds import Rounds
from site_node.training import Trainer
from site_node.witnesses import Witnesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from site_node.app import Site
    from site_node.config import Identity, SiteHome

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
LOOK_S = 1.0
# A coordinator that does not answer is told again after these pauses; the last one stays.
TELL_AGAIN_S = (10.0, 30.0, 60.0, 300.0, 600.0)
FAILED_PAUSE_MIN = 5.0


def serve(site: Site, say: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
    """Take part in the federation's rounds until interrupted.

    Raises: ConfigurationError if the site has not joined, or another node runs in this folder; NotAMember if the
        coordinator does not have it as a member, or no longer.
    """
    with alone(site.home):
        identity = site.home.load_identity()
        if site.home.next_receipt_key.exists():
            raise ConfigurationError("the receipt key is being changed: finish it with `filmroom-site rotate-key`")
        trainer = Trainer(site.home, site.config, progress)
        gate = _gate(site, identity)
        rounds = Rounds(
            site.home,
            site.config,
            site.store,
            gate,
            trainer,
            (identity.federation, identity.site),
            read_signing_key(identity.receipt_key),
            now,
            say,
            Witnesses(
                site.config.witness_verifiers,
                site.config.witness_quorum,
                partial(release.ask_witness, identity.fleet_address, identity),
            ),
        )
        try:
            rounds.tidy()
            trainer.start()
            gate.warm(now())
            trainer.wait_ready()
            with following_consents(site, say), _telling(site, identity, say):
                _take_part(identity.fleet_address, identity, rounds, say)
        finally:
            trainer.stop()


def _gate(site: Site, identity: Identity) -> Gate:
    return Gate(site.store, identity.federation, site.config.minimum_studies, site.config.max_consent_age)


@contextmanager
def _telling(site: Site, identity: Identity, say: Callable[[str], None]) -> Iterator[None]:
    """Tell the coordinator of withdrawals beside the rounds, so that no round has to end first."""
    notices = Notices(
        site.store,
        _gate(site, identity),
        (identity.federation, identity.site),
        read_signing_key(identity.receipt_key),
        now,
        partial(release.give_notice, identity.fleet_address, identity),
        identity.authority.read_bytes(),
    )
    stop = threading.Event()

    thread = threading.Thread(target=tell_until, args=(stop, notices, say), name="notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def tell_until(
    ended: threading.Event,
    notices: Notices,
    say: Callable[[str], None],
    clock_s: Callable[[], float] = time.monotonic,
) -> None:
    """Look for what a withdrawal affects every second, and tell of it at once, or again after growing pauses."""
    failures, due = 0, clock_s()
    while not ended.wait(LOOK_S):
        if found := notices.look():
            say(f"a withdrawal affects {found} updates that were handed over")
            due = clock_s()
        if clock_s() < due:
            continue
        try:
            told = notices.send()
        except PeerError as error:
            pause = TELL_AGAIN_S[min(failures, len(TELL_AGAIN_S) - 1)]
            failures, due = failures + 1, clock_s() + pause
            say(f"{error}; it is told again in {pause:g} s")
            continue
        failures = 0
        if told.answered:
            say(f"the coordinator answered for {told.answered} updates that were withdrawn")
        if told.refused:
            say(f"the coordinator refuses to hear of {told.refused} updates: see `filmroom-site withdrawals list`")


def _take_part(address: str, identity: Identity, rounds: Rounds, say: Callable[[str], None]) -> None:
    failures = 0
    while True:
        try:
            with release.open_line(address, identity) as line:
                say(f"connected to {identity.federation}")
                rounds.resume(line)
                failures = 0
                while True:
                    incoming = line.announce()
                    if incoming is not None:
                        rounds.take_part(line, incoming)
                        gc.collect()  # requests refer to themselves in circles, and hold models until this
        except NotAMember:
            raise
        except PeerError as error:
            pause = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            failures += 1
            say(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


@contextmanager
def following_consents(site: Site, say: Callable[[str], None]) -> Iterator[None]:
    """Read the consents of the configured FHIR server now and then, until the block ends.

    Raises: ConfigurationError if its address cannot be used.
    """
    if not site.config.consents.fhir_url:
        yield
        return
    fhir_server.check_address(site.config.consents.fhir_url)
    ended = threading.Event()
    reader = threading.Thread(target=_read_until, args=(ended, site, say), name="consents", daemon=True)
    reader.start()
    try:
        yield
    finally:
        ended.set()


def _read_until(ended: threading.Event, site: Site, say: Callable[[str], None]) -> None:
    server = site.config.consents
    pause = 0.0
    while not ended.wait(60 * pause):
        pause = server.interval_min
        try:
            fetched = fetch_consents(site, server)
        except (SiteError, OSError, sa.exc.DBAPIError) as error:
            pause = min(pause, FAILED_PAUSE_MIN)
            # A database's own words quote what was to be written.
            told = error if isinstance(error, SiteError) else type(error).__name__
            say(f"consents of {server.source} not read: {told}; trying again in {pause:g} min")
        else:
            counts = (fetched.records, len(fetched.faults), fetched.doubted + fetched.missed)
            if any(counts):
                say("{}: {} consents loaded, {} not, {} to review".format(server.source, *counts))


@contextmanager
def alone(home: SiteHome) -> Iterator[None]:
    """Hold the site's folder, in which one node or one change of the receipt key works at a time.

    Raises: ConfigurationError if somebody holds it.
    """
    with (home.root / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another site node is running in {home.root}") from None
        yield
