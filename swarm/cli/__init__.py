"""The command line: one file a command, and the only place that sees both planes and reads the environment."""
