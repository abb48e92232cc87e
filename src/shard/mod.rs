//! Floor 5: composes floors 1 to 4 into `step`. Knows no operating system.
