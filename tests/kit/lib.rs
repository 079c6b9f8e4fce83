//! The test kit: fixture trees, real `gridbackup` processes, comparison of trees, a
//! small internet of namespaces.

pub mod compare;
pub mod fixture;
pub mod grid;
pub mod home;
pub mod netns;
