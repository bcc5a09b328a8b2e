"""The JSON of a comparison, `prosocial.parity_report/3`."""

SCHEMA = "prosocial.parity_report/3"
