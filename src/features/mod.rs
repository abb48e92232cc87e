//! Floor 4: one promise each, one file each, one line each in `ALL`.
