"""The archive: what protects a hospital's images against loss, attack and its own administrators."""
