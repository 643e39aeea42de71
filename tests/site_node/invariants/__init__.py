"""Proof of what has to hold inside a round, whatever happens at whatever moment: I1 to I12 of docs/consent.md."""
