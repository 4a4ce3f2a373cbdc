"""How edges are scored and what corrupted ones show, by name: what a command can offer without importing anything."""

METHODS = {
    "exact": "every edge corrupted by itself",
    "eap": "gradient estimate at the clean prompt, one backward pass",
    "eap-clean-corrupted": "mean of the gradients with the clean and with the corrupted embedding",
    "eap-ig": "mean gradient between the corrupted and the clean embedding",
    "eap-ig-activations": "mean gradient between corrupted and clean outputs of the embedding, each layer's heads and MLP in turn",
    "eap-ig-outputs": "exact change of what the reader writes, times the mean gradient there on the reader's own way",
}

EDGE_ABLATIONS = {
    "counterfactual": "what the writer wrote on the corrupted prompt",
    "resample": "what it wrote on another clean prompt of equal length",
    "mean": "its mean over the clean prompts of equal length, position by position",
    "zero": "nothing",
}
