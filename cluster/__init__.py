"""The control plane: which Rigs there are, and which Worker holds what. Ray lives in this package only."""
