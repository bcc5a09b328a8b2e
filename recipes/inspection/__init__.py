"""What any folder or file of this package is (torch-free)."""
