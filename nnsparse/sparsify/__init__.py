"""Making and moving sparsity: pruning, pruning at initialisation, dynamic sparse training."""

from nnsparse.sparsify.context import Context, Target, targets

__all__ = ["Context", "Target", "targets"]
