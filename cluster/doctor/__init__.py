"""What `swarm doctor` looks at: each file has facts, a reader that gathers them, and a pure function from facts to findings."""
