"""Labels for preference pairs and for replies, by any judge, resumable."""
