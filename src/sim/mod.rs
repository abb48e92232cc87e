//! Beside the floors: floors 0 to 5 in a simulated world under one seed.
