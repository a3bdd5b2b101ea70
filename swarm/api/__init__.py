"""What the swarm offers to programs: text in, text out."""
