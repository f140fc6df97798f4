"""What every process of the server is made of: settings, logs, metrics, memory, and what processes say to each other."""
