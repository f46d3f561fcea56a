"""The measuring job: protocol, supervision, statistics and verdict, the same for every device."""
