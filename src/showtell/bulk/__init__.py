"""Captions for more images than one machine has time for: cut into parts, and captioned by a cluster (Ray Data).

The input is cut into numbered parts once (`parts.py`), and the list of them is written beside the results. A worker
reads the images of a part and captions them (`captioning.py`), and renames the part's finished file into
its place (`results.py`). So a part is done when its file is there, however often workers were killed.
"""
