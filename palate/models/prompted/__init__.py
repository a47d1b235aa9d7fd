"""Language models that are asked to recommend and taught nothing."""
