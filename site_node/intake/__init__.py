"""How images come in: everything received ends in exactly one recorded outcome."""
