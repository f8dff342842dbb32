"""Processes without the threads of the one that runs the tests: of a server that has imported PyTorch and no more.

A fork of a test's own process has the locks of all threads that libraries have started there, and not the threads:
what it does then depends on the tests that ran before.
"""

import multiprocessing

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT = multiprocessing.get_context(METHOD)
CONTEXT.set_forkserver_preload(["pytest", "torch", "showtell.training.inputs.features"])
