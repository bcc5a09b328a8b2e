"""CoSAlign (arXiv 2410.08968): training data and tuning for a model that follows safety configs."""
