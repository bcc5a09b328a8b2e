"""The lab: a small synthetic world whose harm is nonsense words, so that its judges are exact."""
