"""Numbers read from runs: outcomes of a task, the importance of heads, and how sure each is."""
