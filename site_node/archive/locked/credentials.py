"""Access key and secret of an S3 endpoint, in the form of AWS's shared credentials file.

Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from site_node.errors import ConfigurationError
from site_node.keys import read_secret

if TYPE_CHECKING:
    from pathlib import Path

_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who this site is at an endpoint; never shown."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    def ini(self) -> str:
        """Return the credentials as a file's content."""
        return f"[{_PROFILE}]\naws_access_key_id = {self.access_key}\naws_secret_access_key = {self.secret_key}\n"


def read(path: Path) -> Credentials:
    """Return the credentials in a file of mode 0600.

    Raises: ConfigurationError if it is missing, open to others, or holds none.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_secret(path).decode())
        section = parser[_PROFILE]
        return Credentials(section["aws_access_key_id"], section["aws_secret_access_key"])
    except (configparser.Error, KeyError, UnicodeDecodeError):
        # The cause is not shown: it would repeat the file's lines.
        raise ConfigurationError(
            f"{path}: expected [{_PROFILE}] with aws_access_key_id and aws_secret_access_key"
        ) from None
