//! The node on the network: one swarm, the streams on it, and the handle that the rest of the node uses.
