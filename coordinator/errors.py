"""Errors of the coordinator.

CoordinatorError
├── ConfigurationError   the coordinator's own set-up is wrong; the operator mends it
├── PeerError            a site or a partner broke the protocol, or may not do this
├── RunFailed            a run cannot go on: quorum lost, sites disagree
├── RunEnded             a run was ended from outside: a contribution to it was withdrawn
└── UpdateRetracted      an update was taken back before its round was closed; the round can close without it
"""


class CoordinatorError(Exception):
    """Root of what this package raises."""


class ConfigurationError(CoordinatorError):
    """The coordinator's configuration, keys or command is wrong."""


class PeerError(CoordinatorError):
    """A site or partner broke the protocol, or asked for what it may not have."""


class RunFailed(CoordinatorError):
    """A run ended without a model; the message says why."""


class RunEnded(CoordinatorError):
    """A run was ended while it was carried out; the record says why."""


class UpdateRetracted(CoordinatorError):
    """An update was taken back before its round was closed, and nothing was written."""
