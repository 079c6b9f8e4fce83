//! One suite that every `ShareStore` must pass.
