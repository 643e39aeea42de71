"""The consortium's side: members, tasks, runs, and the record of them.

Flower reads its switches when it is first imported, so they are set here, before any module of ours can import it: no
telemetry, no update check, no installing of what others name, and array parts large enough that a model is a few and
small enough that several in transit cost little memory.
"""

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
os.environ["FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"] = str(8 * 2**20)
