//! Floor 6: runtime, listener, connection pumps, lanes, clock. The only floor that names monoio, flume and quanta.
