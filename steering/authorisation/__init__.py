"""Authorisation of external safety configs: trusted keys, signed statements, delegation."""
