"""What the fork server loads once, so that no cell has to: the harness, torch, its slow corners.

The first optimizer of a process imports the compiler (more than a second), wanted or not. The
server keeps what a cell that died left running, so that the parent finds it.
"""

import warnings

import torch

from lcbench import cells, descent, errands

descent.keep_orphans()
# The server did not fork the orphans it keeps, and would say so when they end.
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])

__all__ = ["cells", "errands"]
