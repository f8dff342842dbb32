"""Captioners that were trained elsewhere and published for `transformers`, read as showtell models.

reading.py    a folder of `save_pretrained` -> config, words, weights
families.py   which options and weights make BLIP, GIT, a vision-encoder-decoder, BLIP-2
decoder.py    the decoder that all of them are
"""
