//! The test kit: fixture trees, real `gridbackup` processes, comparison of trees.

pub mod compare;
pub mod fixture;
pub mod grid;
pub mod home;
