"""Who may use which safety config: trust, statements, delegation."""
