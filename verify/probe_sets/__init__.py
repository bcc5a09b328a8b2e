"""Public probe sets, each in the format that its authors publish, read into our probes."""
