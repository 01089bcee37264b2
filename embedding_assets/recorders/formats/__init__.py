"""What recorders write: one file a format, each turns bytes into recordings."""
