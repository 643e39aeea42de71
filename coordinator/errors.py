"""Errors of the coordinator.

CoordinatorError
├── ConfigurationError   the coordinator's own set-up is wrong; the operator mends it
├── PeerError            a site or a partner broke the protocol, or may not do this
└── RunFailed            a run cannot go on: quorum lost, sites disagree
"""


class CoordinatorError(Exception):
    """Root of what this package raises."""


class ConfigurationError(CoordinatorError):
    """The coordinator's configuration, keys or command is wrong."""


class PeerError(CoordinatorError):
    """A site or partner broke the protocol, or asked for what it may not have."""


class RunFailed(CoordinatorError):
    """A run ended without a model; the message says why."""
