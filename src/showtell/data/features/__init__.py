"""The feature cache: what a frozen encoder makes of each image, computed once."""
