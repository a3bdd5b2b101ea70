"""Where weights come from: folders and the Hub, safetensors only, one tensor at a time."""
