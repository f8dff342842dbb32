"""BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE as the official COCO caption evaluation code has them, on its tokens."""
