//! Sealed shares on disk that still wait for their peer: one file a share, durable before the database names it.
