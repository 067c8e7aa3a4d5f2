"""Messages between master and workers, and the control socket for operators."""
