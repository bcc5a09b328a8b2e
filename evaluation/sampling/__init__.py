"""Replies of several models to the same probes: in pieces that can be drawn anywhere, once each."""
