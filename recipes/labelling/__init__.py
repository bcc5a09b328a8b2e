"""Labels preference pairs and replies with any judge; a killed run resumes where it stopped."""
