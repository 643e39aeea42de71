"""The archive: what protects a hospital's images against loss, attack and its own administrators.

Two planes. Snapshots (the modules of this folder) bring back the whole of any day: packed by restic, with an alarm when
pixels change. Locked copies (`locked`) keep each series as an object of its own, with its own legal date and hold, at
endpoints where nobody deletes it before; the snapshots' repository may lie at such an endpoint too.
"""
