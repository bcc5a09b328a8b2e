"""The log of what was asked under which safety config."""
