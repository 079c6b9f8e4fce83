//! Peers, seen from both sides: where our shares go, and what we keep for friends.
