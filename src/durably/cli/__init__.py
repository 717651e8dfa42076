"""The command line. Heavy rooms are imported inside the commands, so that help appears at once."""
