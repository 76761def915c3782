"""Doors to other software; each needs an extra and is imported only when it is used."""
