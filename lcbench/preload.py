"""What the fork server loads once, so that no cell has to: the harness, torch, its slow corners.

The first optimizer of a process imports the compiler (more than a second), wanted or not.
"""

import torch

from lcbench import cells

torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])

__all__ = ["cells"]
