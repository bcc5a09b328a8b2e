"""CoSAlign (arXiv 2410.08968): builds training data and tunes a model to follow safety configs."""
