"""What everything else stands on: errors, files, settings, chat encoding, protocols, signing primitives."""
