"""The Worker: the process that serves one Device. Knows nothing of Ray."""
