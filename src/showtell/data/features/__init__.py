"""The feature cache: a frozen encoder's features of each image, computed once."""
