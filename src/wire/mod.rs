//! Floor 1: bytes to envelopes and back. Knows no room, no user and no right.
