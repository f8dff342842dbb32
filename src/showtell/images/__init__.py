"""From the name of an image to its pixels: for captioning, serving, clusters, data sets and training."""
