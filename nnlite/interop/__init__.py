"""Bridges to other packages and formats; each is loaded when it is first used."""
