//! Floor 3: connections, rooms, order, delivery. Knows no feature by name.
