"""The lab: a small authored world whose harm is nonsense and whose judges are exact."""
