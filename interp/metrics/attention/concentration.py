"""Sum of a row's squared weights, the Herfindahl index; 1 for a single key, 1/n for n equal keys.

Its inverse is an effective number of keys. The paper's concentration of a head is the Frobenius norm of its pattern, the root
of the sum of this number over all rows, which grows with the text; the mean over rows does not.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", "weight²", paper="arXiv 2510.11602 (Frobenius norm of a head's map)")
def concentration(rows: AttentionRows) -> Tensor:
    return torch.linalg.vector_norm(rows.pattern, dim=-1).square()
