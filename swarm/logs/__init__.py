"""What the swarm's processes say, in files of their own: one JSON object a line, small by rotation. Standard library only."""
