//! Floor 8: configuration, boot, pinning, drain.
