"""The audit log: requests and refusals, with the safety config of each."""
