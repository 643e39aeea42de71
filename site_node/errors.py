"""Errors of the site node.

SiteError
├── ConfigurationError   the site's own set-up is wrong; the operator mends it
├── UnreadableInstance   a DICOM file cannot be used; it goes to quarantine
├── PeerError            the coordinator broke the protocol or cannot be reached
│   └── PeerRefused      it answered, and will not have this: asking again is of no use
│       └── NotAMember   it does not have this site as a member, or no longer
├── ClockRefused         the machine's clock went back, or jumped ahead: expiry is not judged by it
├── NotCompliant         an endpoint withstood no probe, or too long ago: nothing is called locked there
├── LockedCopyInvalid    a locked copy, or what should become one, is not what it must be
├── EndpointError        an S3 endpoint that holds locked copies
│   ├── EndpointUnreachable  gave no answer; nothing is known of what was asked
│   └── EndpointRefused      answered with an error
├── ReleaseRefused       what was about to leave is not what the task declares
├── TrainingFailed       the worker could not finish; the round is given up
└── ArchiveError         a snapshot or a restore is not what it has to be
    └── ArchiveAlarm     images changed as no hospital changes them; a person has to look
"""


class SiteError(Exception):
    """Root of what this package raises; its text names attributes, never patient values."""


class ConfigurationError(SiteError):
    """The site's configuration, keys or command is wrong."""


class UnreadableInstance(SiteError):
    """A file is not a DICOM instance this site can use."""


class PeerError(SiteError):
    """The coordinator broke the protocol, or cannot be reached."""


class PeerRefused(PeerError):
    """The coordinator answered that it will not have this."""


class NotAMember(PeerRefused):
    """The coordinator answered that this site is no member of its federation."""


class ClockRefused(SiteError):
    """The machine's clock cannot be trusted to judge whether something has expired."""


class NotCompliant(SiteError):
    """An endpoint must not be called compliant: its probe failed, or is too old, or was never made."""


class LockedCopyInvalid(SiteError):
    """A sealed object is damaged or another than it should be, or a file changed while it was sealed."""


class EndpointError(SiteError):
    """An S3 endpoint does not do what was asked of it."""


class EndpointUnreachable(EndpointError):
    """An S3 endpoint gave no answer."""


class EndpointRefused(EndpointError):
    """An S3 endpoint answered with an error; `code` is S3's word for it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ReleaseRefused(SiteError):
    """An outgoing message differs from what the task declares."""


class TrainingFailed(SiteError):
    """The training worker did not finish its work."""


class ArchiveError(SiteError):
    """A snapshot was not made, or what was restored is not all that was archived."""


class ArchiveAlarm(ArchiveError):
    """Images of the archive changed in a way that only damage or an attack explains."""
