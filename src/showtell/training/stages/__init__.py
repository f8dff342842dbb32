"""The stages of a recipe, and the losses that they minimise."""
