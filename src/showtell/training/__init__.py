"""Training, in PyTorch: `trainer.py` is the loop, `run.py` comes before it, and `epoch_end.py` follows each epoch.

`recipe.py` says what is trained, `stages` what is minimised, and `inputs` what a step gets.
"""

import os

# A thread that waits for the others gives up its core. By default it spins, and if the machine has other work, the
# others wait for the core on which it spins. OpenMP reads this once, when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
