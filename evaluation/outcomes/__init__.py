"""Outcomes: replies to probes with their judgements, and their redaction."""
