"""Integration with inspect_ai: bundles as models, comparisons as logs for `inspect view` (torch-free)."""
