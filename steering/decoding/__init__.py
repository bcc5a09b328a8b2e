"""The decoding loop: requests, engines, reply drafts and replies."""
