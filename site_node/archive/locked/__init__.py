"""Locked copies: each series sealed at the site, and locked in S3 (Object Lock, COMPLIANCE) until its legal date."""
