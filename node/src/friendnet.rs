//! Who belongs to the grid: tickets, certificates, the roster that all members hold.
