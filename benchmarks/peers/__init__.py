"""Other tools that de-identify, each run by a small script of its own over the same files as Filmroom.

They need packages that Filmroom does not: `make peers` installs them into `.venv-peers`. Every script is
`python -m benchmarks.peers.NAME SOURCE TARGET` and uses a tool as its documentation shows it, at its defaults.
"""
