"""Workers: tasks done here, or on the computers of a cluster."""
