"""Training, in PyTorch: `trainer.py` is the loop, `run.py` comes before it, and `epoch_end.py` follows each epoch.

`recipe.py` says what is trained, `stages` what they minimise, and `inputs` what a step is given.
"""
