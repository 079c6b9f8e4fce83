//! A decorator that fails on purpose.
