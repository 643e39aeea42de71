"""A whole consortium on one machine: three invented hospitals, their consents, and what came of it.

It uses only the public commands and is not shipped. No real person is in it.
"""
