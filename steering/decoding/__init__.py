"""The decoding loop: requests, engines, drafts, replies."""
