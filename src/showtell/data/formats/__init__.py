"""One file for each format that captioned images come in."""
