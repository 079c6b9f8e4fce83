//! A token bucket, and the `PeerStore` decorator that holds puts to it.
