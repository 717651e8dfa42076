"""One machine, many cores: a control process and its workers, each an ordinary host."""
