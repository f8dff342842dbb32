"""HTML pages to look at: the training report, a comparison, explanations."""
