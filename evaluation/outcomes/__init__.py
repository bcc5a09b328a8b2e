"""What came of a probe: a reply and its judgement, and what of it may be shown."""
