"""Training, in PyTorch: `trainer.py` is the loop, `run.py` comes before it, and `epoch_end.py` follows each epoch.

`recipe.py` says what is trained, `stages` what they minimise, and `inputs` what a step is given.
"""

import os

# A thread that waits for the others gives its core away. By default it spins, and beside other work on the machine the
# others wait for the core that it spins on. OpenMP reads this once, as PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
