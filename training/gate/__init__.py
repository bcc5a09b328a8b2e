"""The gate: the risk, by harm category, of every candidate for the next token."""
