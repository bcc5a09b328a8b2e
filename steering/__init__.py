"""The lexicographic rule: its torch reference, the decoding loop, safety configs and who may use them."""
