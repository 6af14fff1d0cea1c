"""Which model is best: baselines, metrics, comparisons and how they are shown."""
