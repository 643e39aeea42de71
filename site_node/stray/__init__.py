"""Identities where none should be: files searched, what is found reported, and what a person decides about it.

Holds, prints and reports no value of a patient: only of which kind it is, by which rule it was found, where it stands
and a keyed digest of it. Knows the hospital's own patients by keyed digests alone.
"""
