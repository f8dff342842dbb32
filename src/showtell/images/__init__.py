"""One road from a name to a picture: for captioning, serving, clusters, data sets and training alike."""
