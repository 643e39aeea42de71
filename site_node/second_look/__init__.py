"""A second opinion on every de-identified instance, which shares no code with the first.

Deliberately naive: it knows what the original said of persons, and looks for it in what was written. It does not
know the profile, and cleans nothing.
"""
