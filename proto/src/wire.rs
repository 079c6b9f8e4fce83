//! What nodes say to each other: one file per message family.
