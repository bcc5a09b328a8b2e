"""inspect_ai: bundles as models of its evaluations, comparisons as logs that `inspect view` opens (torch-free)."""
