"""One file a command, named as the command; adding a file is the whole registration."""
