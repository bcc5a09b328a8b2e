"""Running a bundle: the session of its graph, and the bundle as an object."""
