"""Sampling the replies of several models to the same probes, in shards that can run on any worker."""
